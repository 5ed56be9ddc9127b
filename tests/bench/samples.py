#!/usr/bin/env python3
"""Calibration and test samples for the zoo's models that come without: OUT/NAME/calib and OUT/NAME/test, one npz file a sample.

  samples.py ZOO OUT [-k REGEX] [--calib 128] [--test 128]

Windows of recordings, crops of photographs and lines of text, as users of each model prepare them; models of features get them
from the model before theirs, and states are those that ONNX Runtime returned for the window before. What tests is cut from
other recordings, photographs and lines than what calibrates. Needs numpy, pillow, onnxruntime and what `zoo.py` needs.
"""
import argparse, os, re
import numpy as np
import onnxruntime as ort
from PIL import Image

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def session(zoo, name):
    o = ort.SessionOptions()
    o.log_severity_level = 4
    return ort.InferenceSession(f"{zoo}/models/{name}/model.onnx", o, providers=["CPUExecutionProvider"])


class Source:
    """Raw windows, crops and lines of one half of what there is."""

    def __init__(self, zoo, test, n):
        self.zoo, self.test, self.n, self.rng = zoo, test, n, np.random.default_rng(int(test))
        z = np.load(f"{zoo}/data/speech/data.npz")
        clips = [z[k].astype(np.float32) / 32768 for k in z.files if z[k].dtype == np.int16]
        self.clips = clips[1::3] if test else clips[0::3] + clips[2::3]
        i, s = np.load(f"{zoo}/data/imagenet-20/data.npz")["images260"], np.load(f"{zoo}/data/skimage-photos/data.npz")
        colour = [s[k] for k in s.files if s[k].ndim == 3 and min(s[k].shape[:2]) > 250]
        self.photos = list(i[14:]) + colour[1::3] if test else list(i[:14]) + colour[0::3] + colour[2::3]
        self.pages = [s["text"]] if test else [s["page"]]
        lines = [l for l in open(f"{zoo}/data/text-en/text.txt", encoding="utf-8", errors="replace").read().splitlines() if len(l) > 20]
        self.lines = lines[1::2] if test else lines[0::2]

    def sound(self, length):
        """Windows spread evenly over all recordings, each at a loudness of its own."""
        whole = np.concatenate([c if len(c) >= length else np.resize(c, length) for c in self.clips])
        starts = np.linspace(0, len(whole) - length, self.n).astype(int)
        return np.stack([whole[s : s + length] * self.rng.uniform(0.3, 1.0) for s in starts]).astype(np.float32)

    def stream(self, length):
        """Consecutive windows."""
        whole = np.resize(np.concatenate(self.clips), length * self.n)
        return whole.reshape(self.n, length)

    def spectra(self, bins, frames, size, hop):
        wave = self.sound(size + hop * (frames - 1))
        pieces = np.stack([wave[:, i * hop : i * hop + size] for i in range(frames)], 1) * np.hanning(size)
        return np.abs(np.fft.rfft(pieces, axis=-1))[..., :bins].astype(np.float32)

    def crops(self, height, width):
        out = []
        for j in range(self.n):
            p = Image.fromarray(self.photos[j % len(self.photos)])
            part = self.rng.uniform(0.5, 1.0)
            w, h = p.size
            cw = min(w, h * width / height) * part
            ch = cw * height / width
            x, y = self.rng.uniform(0, w - cw), self.rng.uniform(0, h - ch)
            c = p.resize((width, height), Image.BICUBIC, box=(x, y, x + cw, y + ch))
            out.append(np.asarray(c.transpose(Image.FLIP_LEFT_RIGHT) if self.rng.random() < 0.5 else c))
        return np.stack(out).astype(np.float32)

    def text_lines(self, height, width):
        out = []
        for j in range(self.n):
            page = Image.fromarray(self.pages[j % len(self.pages)])
            w, h = page.size
            ch = self.rng.uniform(18, 40)
            cw = min(w - 1, ch * width / height)
            x, y = self.rng.uniform(0, w - cw), self.rng.uniform(0, h - ch)
            out.append(np.asarray(page.resize((width, height), Image.BICUBIC, box=(x, y, x + cw, y + ch))))
        return np.stack(out).astype(np.float32)


def planes(x):
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def log(x):
    return np.log10(np.maximum(x * x, 1e-12)).astype(np.float32)


def normal(x):
    return (x - x.mean(1, keepdims=True)) / (x.std(1, keepdims=True) + 1e-8)


def each(**arrays):
    """One dictionary a sample; every array keeps an axis of one."""
    n = min(len(v) for v in arrays.values())
    return [{k: v[j : j + 1] for k, v in arrays.items()} for j in range(n)]


def mels(s):
    """Windows of 76 frames as the speech embedding reads them, from the model of spectra."""
    m = session(s.zoo, "oww-melspec")
    out = [m.run(None, {"input": w[None] * 32768})[0].reshape(-1, 32)[:76] / 10 + 2 for w in s.sound(12640)]
    return np.stack(out)[..., None].astype(np.float32)


def embeddings(s):
    m, e = session(s.zoo, "oww-melspec"), session(s.zoo, "oww-embedding")
    out = []
    for w in s.sound(16000 * 2):
        x = m.run(None, {"input": w[None] * 32768})[0].reshape(-1, 32) / 10 + 2
        windows = np.stack([x[8 * i : 8 * i + 76] for i in range(16)])[..., None].astype(np.float32)
        out.append(e.run(None, {"input_1": windows})[0].reshape(16, 96))
    return np.stack(out)


def tokens(s):
    ids = np.load(f"{s.zoo}/data/minilm-l6/{'test' if s.test else 'calib'}.npz")
    ids, mask = ids["input_ids"][: s.n], ids["attention_mask"][: s.n]
    return each(input_ids=ids, attention_mask=mask, token_type_ids=np.zeros_like(ids))


def stateful(s, name, inputs, states):
    """Windows one after the other, with the states that the model returned for the window before."""
    m = session(s.zoo, name)
    outs, past, feeds = [o.name for o in m.get_outputs()], {k: v for k, (v, _) in states.items()}, []
    for x in inputs:
        feeds.append({**x, **past})
        got = dict(zip(outs, m.run(None, feeds[-1])))
        past = {k: got[o] for k, (_, o) in states.items()}
    return feeds


def zeros(*dims):
    return np.zeros(dims, np.float32)


SAMPLES = {
    "basic-pitch": lambda s: each(**{"serving_default_input_2:0": s.sound(43844)[..., None]}),
    "crepe-tiny": lambda s: each(frames=normal(s.sound(1024))),
    "ddddocr-rec": lambda s: each(input1=((s.text_lines(64, 256) / 255 - 0.5) / 0.5)[:, None]),
    "dnsmos": lambda s: each(input_1=s.sound(144160)),
    "dtln-1": lambda s: stateful(
        s, "dtln-1", each(input_2=np.abs(np.fft.rfft(s.stream(512))).astype(np.float32)[:, None]), {"input_3": (zeros(1, 2, 128, 2), "tf_op_layer_stack_2")}
    ),
    "efficientnet-lite1": lambda s: each(input=planes((s.crops(240, 240) - 127) / 128)),
    "minilm-l6-int8": lambda s: tokens(s),
    "nsnet2-16k": lambda s: each(input=log(s.spectra(161, 50, 320, 160))),
    "oww-alexa": lambda s: each(**{"onnx::Flatten_0": embeddings(s)}),
    "oww-embedding": lambda s: each(input_1=mels(s)),
    "oww-melspec": lambda s: each(input=s.sound(16000) * 32768),
    "plcmos": lambda s: each(degraded_audio=log(s.spectra(257, 60, 512, 256))[:, None], rater_embed=s.rng.standard_normal((s.n, 64)).astype(np.float32)),
    "ppocr5-cls": lambda s: each(x=planes((s.crops(80, 160) / 255 - MEAN) / STD)),
    "resemblyzer": lambda s: each(mels=s.spectra(40, 160, 400, 160) ** 2),
    "silero-vad": lambda s: stateful(
        s, "silero-vad", [{**x, "sr": np.array(16000, np.int64)} for x in each(input=s.stream(576))], {"state": (zeros(2, 1, 128), "stateN")}
    ),
    "silero-vad-seq": lambda s: stateful(
        s, "silero-vad-seq", [{"input": x.reshape(4, 576)} for x in s.stream(4 * 576)], {"h": (zeros(1, 1, 128), "hn"), "c": (zeros(1, 1, 128), "cn")}
    ),
}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("zoo"), p.add_argument("out")
    p.add_argument("-k", default="")
    p.add_argument("--calib", type=int, default=128), p.add_argument("--test", type=int, default=128)
    a = p.parse_args()
    for name, make in SAMPLES.items():
        if not re.search(a.k, name):
            continue
        for part, n in (("calib", a.calib), ("test", a.test)):
            feeds = make(Source(a.zoo, part == "test", n))
            os.makedirs(f"{a.out}/{name}/{part}", exist_ok=True)
            for j, f in enumerate(feeds):
                np.savez(f"{a.out}/{name}/{part}/{j:03}.npz", **f)
            print(name, part, len(feeds), {k: (v.shape, str(v.dtype)) for k, v in feeds[0].items()}, flush=True)


main()
