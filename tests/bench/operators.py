#!/usr/bin/env python3
"""Single operators beside ONNX Runtime, one thread: which ones are slower here, whatever model they stand in.

  operators.py --cli target/release/compress [-k REGEX] [--seconds 0.15]

Each case is a model of one node. Lines: ratio of our median to ONNX Runtime's, case, both medians in ms; slowest ratio first. Images come
channels first and are moved to channels last and back, which in networks happens at their ends only. Needs numpy, onnx, onnxruntime.
"""
import argparse, json, os, re, subprocess, tempfile, time
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T, helper as h, numpy_helper as nh

rng = np.random.default_rng(0)
cases = {}


def f(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def W(*shape):
    """Weights whose sums have the size of their inputs."""
    return (f(*shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)


def one(name, op, xs, ws=(), attrs={}, pos=None, outs=1, opset=21):
    """A model of one node: arrays by input name, then initializers (None: absent), in the order that `pos` gives."""
    names, inits, inputs = [], [], []
    for key, a in xs.items():
        inputs.append(h.make_tensor_value_info(key, h.np_dtype_to_tensor_dtype(a.dtype), a.shape))
        names.append(key)
    for i, a in enumerate(ws):
        names.append("" if a is None else f"w{i}")
        inits += [] if a is None else [nh.from_array(a, f"w{i}")]
    names = [names[i] for i in pos] if pos else names
    node = h.make_node(op, names, [f"y{i}" for i in range(outs)], **attrs)
    outputs = [h.make_empty_tensor_value_info(f"y{i}") for i in range(outs)]
    graph = h.make_graph([node], "g", inputs, outputs, inits)
    cases[name] = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=10), xs


# convs
one('conv3x3_s1_64_56','Conv',{'x':f(1,64,56,56)},[W(64,64,3,3),W(64)],{'pads':[1]*4})
one('conv3x3_s2_64_128','Conv',{'x':f(1,64,56,56)},[W(128,64,3,3),W(128)],{'pads':[1]*4,'strides':[2,2]})
one('conv7x7_s2_stem','Conv',{'x':f(1,3,224,224)},[W(64,3,7,7),W(64)],{'pads':[3]*4,'strides':[2,2]})
one('conv1x1_256_64_56','Conv',{'x':f(1,256,56,56)},[W(64,256,1,1),W(64)])
one('conv_group32_resnext','Conv',{'x':f(1,128,28,28)},[W(128,4,3,3),W(128)],{'pads':[1]*4,'group':32})
one('conv_dilated_d2','Conv',{'x':f(1,64,56,56)},[W(64,64,3,3),W(64)],{'pads':[2]*4,'dilations':[2,2]})
one('conv_dw7x7_convnext','Conv',{'x':f(1,96,56,56)},[W(96,1,7,7),W(96)],{'pads':[3]*4,'group':96})
one('conv_dw_dilated','Conv',{'x':f(1,96,56,56)},[W(96,1,3,3),W(96)],{'pads':[2]*4,'group':96,'dilations':[2,2]})
one('conv3d','Conv',{'x':f(1,16,16,32,32)},[W(32,16,3,3,3),W(32)],{'pads':[1]*6})
one('conv1d_k3','Conv',{'x':f(1,128,1000)},[W(128,128,3),W(128)],{'pads':[1,1]})
one('conv1d_k16_s8','Conv',{'x':f(1,1,16000)},[W(256,1,16),W(256)],{'strides':[8]})
one('conv1d_dw_k31','Conv',{'x':f(1,144,400)},[W(144,1,31),W(144)],{'pads':[15,15],'group':144})
one('conv5x5','Conv',{'x':f(1,32,56,56)},[W(64,32,5,5),W(64)],{'pads':[2]*4})
one('conv1x7','Conv',{'x':f(1,128,17,17)},[W(128,128,1,7),W(128)],{'pads':[0,3,0,3]})
one('convt_4x4_s2','ConvTranspose',{'x':f(1,64,32,32)},[W(64,32,4,4),W(32)],{'pads':[1]*4,'strides':[2,2]})
one('convt_3x3_s2_op','ConvTranspose',{'x':f(1,64,32,32)},[W(64,32,3,3),W(32)],{'pads':[1]*4,'strides':[2,2],'output_padding':[1,1]})
one('convt_2x2_24_1','ConvTranspose',{'x':f(1,24,160,160)},[W(24,1,2,2),W(1)],{'strides':[2,2]})
one('convt1d_k16_s8','ConvTranspose',{'x':f(1,256,200)},[W(256,128,16)],{'strides':[8],'pads':[4,4]})
one('convt_dw','ConvTranspose',{'x':f(1,64,32,32)},[W(64,1,4,4)],{'pads':[1]*4,'strides':[2,2],'group':64})
# gemm / matmul
one('gemm_1x4096x4096','Gemm',{'x':f(1,4096)},[W(4096,4096),W(4096)],{'transB':1})
one('matmul_512x768x3072','MatMul',{'x':f(1,512,768)},[W(768,3072)])
one('matmul_dyn_12x128x64x128','MatMul',{'a':f(1,12,128,64),'b':f(1,12,64,128)})
one('matmul_dyn_square512','MatMul',{'a':f(512,512),'b':f(512,512)})
one('matmul_7x7_batched','MatMul',{'a':f(4096,7,7),'b':f(4096,7,7)})
one('einsum_bhqk','Einsum',{'a':f(2,8,64,32),'b':f(2,8,64,32)},attrs={'equation':'bhqd,bhkd->bhqk'})
# norm/softmax
one('softmax_last_1000','Softmax',{'x':f(64,1000)})
one('softmax_last_32','Softmax',{'x':f(12,128,32)})
one('softmax_axis1','Softmax',{'x':f(1,21,256,256)},attrs={'axis':1})
one('logsoftmax','LogSoftmax',{'x':f(64,1000)})
one('layernorm_768','LayerNormalization',{'x':f(1,512,768)},[W(768),W(768)])
one('rmsnorm','RMSNormalization',{'x':f(1,512,768)},[W(768)],opset=23)
one('groupnorm','GroupNormalization',{'x':f(1,64,64,64)},[W(64),W(64)],{'num_groups':8})
one('instancenorm','InstanceNormalization',{'x':f(1,64,64,64)},[W(64),W(64)])
one('lrn','LRN',{'x':f(1,64,55,55)},attrs={'size':5})
one('lpnorm','LpNormalization',{'x':f(128,512)},attrs={'axis':-1})
one('batchnorm','BatchNormalization',{'x':f(1,64,112,112)},[np.abs(W(64))+.1,W(64),W(64),np.abs(W(64))+.1])
# elementwise
for op in ['Relu','Sigmoid','Tanh','Erf','Exp','Log','Sqrt','Gelu','HardSwish','Softplus','Elu','Selu','Mish','Sin','Cos','Floor','Round','Abs','Neg','Reciprocal','Softsign','Sign','Atan','Sinh']:
    x=np.abs(f(1,256,56,56))+.1 if op in('Log','Sqrt','Reciprocal') else f(1,256,56,56)
    one('ew_'+op,op,{'x':x},opset=22)
one('ew_add_same','Add',{'a':f(1,256,56,56),'b':f(1,256,56,56)})
one('ew_mul_channel','Mul',{'a':f(1,256,56,56),'b':f(1,256,1,1)})
one('ew_pow2','Pow',{'a':f(1,256,56,56)},[np.array(2,np.float32)])
one('ew_pow_half','Pow',{'a':np.abs(f(1,256,56,56))},[np.array(.37,np.float32)])
one('ew_where','Where',{'c':f(1,256,56,56)>0,'a':f(1,256,56,56),'b':f(1,256,56,56)})
one('ew_prelu','PRelu',{'x':f(1,64,112,112)},[W(64,1,1)])
one('ew_div','Div',{'a':f(1,256,56,56),'b':f(1,256,56,56)})
one('ew_greater','Greater',{'a':f(1,256,56,56),'b':f(1,256,56,56)})
one('ew_add_i64','Add',{'a':rng.integers(0,9,(1,256,1000)),'b':rng.integers(0,9,(1,256,1000))})
one('ew_mod_i64','Mod',{'a':rng.integers(0,999,(256,1000)),'b':rng.integers(1,9,(256,1000))})
one('cast_f2i','Cast',{'x':f(1,256,56,56)},attrs={'to':T.INT64})
one('cast_u8f','Cast',{'x':rng.integers(0,255,(1,3,640,640)).astype(np.uint8)},attrs={'to':T.FLOAT})
one('cast_f16','Cast',{'x':f(1,256,56,56)},attrs={'to':T.FLOAT16})
one('clip','Clip',{'x':f(1,256,56,56)},[np.array(0,np.float32),np.array(6,np.float32)])
# pooling
one('maxpool3s2','MaxPool',{'x':f(1,64,112,112)},attrs={'kernel_shape':[3,3],'strides':[2,2],'pads':[1]*4})
one('maxpool5s1','MaxPool',{'x':f(1,128,20,20)},attrs={'kernel_shape':[5,5],'strides':[1,1],'pads':[2]*4})
one('maxpool13s1','MaxPool',{'x':f(1,128,20,20)},attrs={'kernel_shape':[13,13],'strides':[1,1],'pads':[6]*4})
one('avgpool3','AveragePool',{'x':f(1,192,35,35)},attrs={'kernel_shape':[3,3],'strides':[1,1],'pads':[1]*4})
one('gap','GlobalAveragePool',{'x':f(1,1280,7,7)})
one('gap_big','GlobalAveragePool',{'x':f(1,64,112,112)})
one('maxpool1d','MaxPool',{'x':f(1,128,4000)},attrs={'kernel_shape':[4],'strides':[4]})
# reductions
one('rmean_last','ReduceMean',{'x':f(1,512,768)},[np.array([-1])])
one('rmean_hw','ReduceMean',{'x':f(1,256,56,56)},[np.array([2,3])])
one('rsum_0','ReduceSum',{'x':f(512,768)},[np.array([0])])
one('rmax_mid','ReduceMax',{'x':f(16,128,256)},[np.array([1])])
one('rl2','ReduceL2',{'x':f(512,768)},[np.array([-1])])
one('rlse','ReduceLogSumExp',{'x':f(512,768)},[np.array([-1])])
one('argmax_c','ArgMax',{'x':f(1,21,256,256)},attrs={'axis':1})
one('argmax_last','ArgMax',{'x':f(512,1000)},attrs={'axis':-1})
one('cumsum','CumSum',{'x':f(128,1000)},[np.array(1)])
one('topk5','TopK',{'x':f(64,1000)},[np.array([5])],outs=2)
one('topk300','TopK',{'x':f(1,8400)},[np.array([300])],outs=2)
# movement
one('transpose_nchw_nhwc','Transpose',{'x':f(1,64,112,112)},attrs={'perm':[0,2,3,1]})
one('transpose_0213','Transpose',{'x':f(1,128,12,64)},attrs={'perm':[0,2,1,3]})
one('transpose_2d','Transpose',{'x':f(1024,1024)},attrs={'perm':[1,0]})
one('transpose_5d_shuffle','Transpose',{'x':f(1,2,58,28,28)},attrs={'perm':[0,2,1,3,4]})
one('concat_c','Concat',{'a':f(1,64,56,56),'b':f(1,64,56,56),'c':f(1,32,56,56)},attrs={'axis':1})
one('concat_last','Concat',{'a':f(4096,12),'b':f(4096,20)},attrs={'axis':1})
one('split','Split',{'x':f(1,128,56,56)},[np.array([64,64])],{'axis':1},outs=2)
one('slice_step2','Slice',{'x':f(1,3,640,640)},[np.array([0]),np.array([640]),np.array([2]),np.array([2])],pos=[0,1,2,3,4])
one('slice_last','Slice',{'x':f(512,1024)},[np.array([10]),np.array([500]),np.array([1])])
one('pad_reflect','Pad',{'x':f(1,32,128,128)},[np.array([0,0,3,3,0,0,3,3])],{'mode':'reflect'})
one('pad_const','Pad',{'x':f(1,32,128,128)},[np.array([0,0,1,1,0,0,1,1])])
one('gather_emb','Gather',{'i':rng.integers(0,29999,(1,512))},[W(30000,256)],pos=[1,0])
one('gather_axis1','Gather',{'x':f(64,1000,8)},[rng.integers(0,999,(300,))],{'axis':1})
one('gatherelements','GatherElements',{'x':f(64,1000),'i':rng.integers(0,999,(64,300))},attrs={'axis':1})
one('gathernd','GatherND',{'x':f(64,1000,8),'i':rng.integers(0,63,(500,2))})
one('scatternd','ScatterND',{'x':f(64,1000),'i':rng.integers(0,63,(30,1)),'u':f(30,1000)})
one('scatterel','ScatterElements',{'x':f(64,1000),'i':rng.integers(0,999,(64,30)),'u':f(64,30)},attrs={'axis':1})
one('expand','Expand',{'x':f(1,256,1,1)},[np.array([1,256,56,56])])
one('tile','Tile',{'x':f(1,64,32,32)},[np.array([1,1,2,2])])
one('d2s','DepthToSpace',{'x':f(1,48,160,160)},attrs={'blocksize':4})
one('s2d','SpaceToDepth',{'x':f(1,3,640,640)},attrs={'blocksize':2})
one('onehot','OneHot',{'i':rng.integers(0,99,(1,512))},[np.array(100),np.array([0,1],np.float32)])
one('resize_bilinear_up2','Resize',{'x':f(1,64,64,64)},[None,np.array([1,1,2,2],np.float32)],{'mode':'linear'})
one('resize_nearest_up2','Resize',{'x':f(1,64,64,64)},[None,np.array([1,1,2,2],np.float32)],{'mode':'nearest'})
one('resize_cubic','Resize',{'x':f(1,3,128,128)},[None,np.array([1,1,2,2],np.float32)],{'mode':'cubic'})
one('gridsample','GridSample',{'x':f(1,32,64,64),'g':np.clip(f(1,64,64,2),-1,1)})
one('roialign','RoiAlign',{'x':f(1,256,64,64),'r':np.cumsum(np.abs(f(100,2,2))*30,1).reshape(100,4).astype(np.float32),'b':np.zeros(100,np.int64)},attrs={'output_height':7,'output_width':7,'sampling_ratio':2,'spatial_scale':.25,'coordinate_transformation_mode':'half_pixel'})
one('nms','NonMaxSuppression',{'b':np.sort(np.abs(f(1,1000,4)),-1),'s':np.abs(f(1,1,1000))},[np.array(100),np.array(.5,np.float32),np.array(.1,np.float32)])
one('nonzero','NonZero',{'x':(f(256,256)>1).astype(np.float32)})
one('trilu','Trilu',{'x':f(8,512,512)})
# rnn
H=256
one('lstm','LSTM',{'x':f(50,1,128)},[W(1,4*H,128),W(1,4*H,H),W(1,8*H)],{'hidden_size':H},outs=3)
one('lstm_bi','LSTM',{'x':f(50,1,128)},[W(2,4*H,128),W(2,4*H,H),W(2,8*H)],{'hidden_size':H,'direction':'bidirectional'},outs=3)
one('gru','GRU',{'x':f(50,1,128)},[W(1,3*H,128),W(1,3*H,H),W(1,6*H)],{'hidden_size':H,'linear_before_reset':1},outs=2)
one('rnn','RNN',{'x':f(50,1,128)},[W(1,H,128),W(1,H,H),W(1,2*H)],{'hidden_size':H},outs=2)
# attention etc
one('attention23','Attention',{'q':f(1,8,256,64),'k':f(1,8,256,64),'v':f(1,8,256,64)},opset=23)
one('rotary','RotaryEmbedding',{'x':f(1,8,256,64)},[W(1,256,32),W(1,256,32)],opset=23)
one('stft','STFT',{'x':f(1,16000,1)},[np.array(160),np.hanning(400).astype(np.float32)],pos=[0,1,2])
one('dft','DFT',{'x':f(1,512,1)},attrs={},opset=20)
# fp16
one('f16_conv','Conv',{'x':f(1,64,56,56).astype(np.float16)},[W(64,64,3,3).astype(np.float16)],{'pads':[1]*4})
one('f16_matmul','MatMul',{'x':f(1,128,768).astype(np.float16)},[W(768,768).astype(np.float16)])
one('f16_add','Add',{'a':f(1,256,56,56).astype(np.float16),'b':f(1,256,56,56).astype(np.float16)})
one('f64_matmul','MatMul',{'x':f(128,256).astype(np.float64)},[W(256,256).astype(np.float64)])


def timed(run, seconds):
    run()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 8 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cli", required=True)
    parser.add_argument("-k", default="")
    parser.add_argument("--seconds", type=float, default=0.15)
    a = parser.parse_args()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = 1, 1, 4
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path, data = os.path.join(folder, "m.onnx"), os.path.join(folder, "x.npz")
        for name, (model, feeds) in cases.items():
            if not re.search(a.k, name):
                continue
            onnx.save(model, path)
            np.savez(data, **feeds)
            try:
                session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                peer = timed(lambda: session.run(None, feeds), a.seconds)
            except Exception:
                peer = None
            command = [a.cli, "bench", path, "--inputs", data, "--threads", "1", "--seconds", str(a.seconds), "--json"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{name}: {done.stderr.strip()[-200:]}")
                continue
            ours = json.loads(done.stdout)["median_ms"]
            rows.append((ours / peer if peer else 0.0, name, peer or float("nan"), ours))
    for ratio, name, peer, ours in sorted(rows, reverse=True):
        print(f"{ratio:8.2f}  {name:24} {peer:9.3f} {ours:9.3f}")


if __name__ == "__main__":
    main()
