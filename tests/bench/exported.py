#!/usr/bin/env python3
"""Architectures as PyTorch exports them, with random weights: equal answers and times beside ONNX Runtime.

  exported.py make OUT [-k REGEX] [--exporter script|dynamo]      models of timm, torchvision and transformers, with inputs
  exported.py check OUT --cli target/release/compress [-k REGEX] [--threads 1] [--times]

`make` writes OUT/NAME.EXPORTER/model.onnx and in.npz (needs torch, timm, torchvision and transformers), or `failed` where PyTorch
does not export a model; what is there already is kept. `check` prints the largest difference to ONNX Runtime without graph
optimisations, relative to the largest value of an output, that of ONNX Runtime with them, and medians of latencies (needs numpy and
onnxruntime). Detectors with random weights order boxes by scores that are equal but for rounding: large differences there are those
that ONNX Runtime has to itself.
"""
import argparse, json, os, re, signal, subprocess, tempfile, time, traceback
import numpy as np


def architectures():
    """Name to a function that gives (module, arguments, names of inputs, symbolic dims)."""
    import timm, torch, torchvision.models as V
    import transformers as T

    M={}
    TIMM="""vit_tiny_patch16_224 swin_tiny_patch4_window7_224 swinv2_cr_tiny_ns_224 convnext_atto convnextv2_atto mobilenetv3_large_100 mobilenetv4_conv_small mobilenetv4_hybrid_medium mobilevit_xs mobilevitv2_050 efficientvit_b0 efficientvit_m0 regnety_002 ghostnetv2_100 levit_128s poolformer_s12 coatnet_nano_rw_224 edgenext_xx_small fastvit_t8 maxvit_rmlp_pico_rw_256 eva02_tiny_patch14_224 tinynet_e xcit_nano_12_p16_224 mixer_s32_224 resmlp_12_224 volo_d1_224 cait_xxs24_224 crossvit_tiny_240 beitv2_base_patch16_224 davit_tiny res2net50_14w_8s resnest14d dpn48b hrnet_w18_small cspdarknet53 ese_vovnet19b_dw dm_nfnet_f0 gmlp_s16_224 repvit_m0_9 starnet_s1 tiny_vit_5m_224 mnasnet_100 semnasnet_075 mixnet_s rexnet_100 lcnet_100 hardcorenas_a convmixer_768_32 halonet26t botnet26t_256 eca_resnet33ts gcresnet33ts sebotnet33ts_256 lambda_resnet26t pit_ti_224 pvt_v2_b0 twins_pcpvt_small nest_tiny visformer_tiny mvitv2_tiny inception_next_tiny hiera_tiny_224 rdnet_tiny efficientformerv2_s0 shvit_s1 swiftformer_xs resnet18 resnetv2_50x1_bit selecsls42b dla34 skresnet18 focalnet_tiny_srf deit3_small_patch16_224 samvit_base_patch16_224 vit_tiny_r_s16_p8_224 haloregnetz_b csatv2 naflexvit_base_patch16_gap mambaout_femto caformer_s18 sequencer2d_s""".split()
    def timm_maker(n):
        def f():
            m=timm.create_model(n,pretrained=False).eval()
            s=m.default_cfg.get('input_size',(3,224,224)); 
            return m,(torch.randn(1,*s),),['x'],None
        return f
    for n in TIMM: M['timm_'+n]=timm_maker(n)
    ids=lambda n,v=1000:torch.randint(5,v,(1,n))
    ones=lambda n:torch.ones(1,n,dtype=torch.long)
    SM=dict(hidden_size=128,num_hidden_layers=3,num_attention_heads=4,intermediate_size=384,vocab_size=1000)
    def enc(cfg,cls,n=48,names=('input_ids','attention_mask'),**kw):
        def f():
            c=getattr(T,cfg)(**{**SM,**kw}); m=getattr(T,cls)(c).eval()
            return m,(ids(n),ones(n)),list(names),{0:{1:'seq'},1:{1:'seq'}}
        return f
    class Pick(torch.nn.Module):
        def __init__(s,m,f): super().__init__(); s.m=m; s.f=f
        def forward(s,*a): return s.f(s.m,*a)
    for a,b in [('BertConfig','BertModel'),('RobertaConfig','RobertaModel'),('ElectraConfig','ElectraModel'),('ModernBertConfig','ModernBertModel'),('DebertaV2Config','DebertaV2Model'),('ConvBertConfig','ConvBertModel'),('RoFormerConfig','RoFormerModel'),('MPNetConfig','MPNetModel'),('NystromformerConfig','NystromformerModel'),('MegatronBertConfig','MegatronBertModel'),('SqueezeBertConfig','SqueezeBertModel'),('FNetConfig','FNetModel'),('MobileBertConfig','MobileBertModel'),('AlbertConfig','AlbertModel'),('XLMRobertaXLConfig','XLMRobertaXLModel'),('NomicBertConfig','NomicBertModel'),('BigBirdConfig','BigBirdModel'),('YosoConfig','YosoModel'),('DebertaConfig','DebertaModel')]:
        kw={}
        if a=='ModernBertConfig': kw=dict(pad_token_id=0,eos_token_id=1,bos_token_id=2,cls_token_id=3,sep_token_id=4,reference_compile=False)
        if a=='SqueezeBertConfig': kw=dict(embedding_size=128)
        if a=='BigBirdConfig': kw=dict(attention_type='original_full')
        if a=='DebertaV2Config': kw=dict(relative_attention=True,pos_att_type=['p2c','c2p'],position_buckets=32)
        if a=='DebertaConfig': kw=dict(relative_attention=True,pos_att_type=['p2c','c2p'])
        M['hf_'+b]=enc(a,b,**kw)
    def dec(cfg,cls,n=32,**kw):
        def f():
            c=getattr(T,cfg)(**{**SM,**kw}); m=getattr(T,cls)(c).eval()
            w=Pick(m,lambda m,i,a: m(input_ids=i,attention_mask=a,use_cache=False).logits)
            return w,(ids(n),ones(n)),['input_ids','attention_mask'],{0:{1:'seq'},1:{1:'seq'}}
        return f
    for a,b in [('LlamaConfig','LlamaForCausalLM'),('MistralConfig','MistralForCausalLM'),('Qwen2Config','Qwen2ForCausalLM'),('Qwen3Config','Qwen3ForCausalLM'),('GemmaConfig','GemmaForCausalLM'),('Gemma2Config','Gemma2ForCausalLM'),('Gemma3TextConfig','Gemma3ForCausalLM'),('PhiConfig','PhiForCausalLM'),('Phi3Config','Phi3ForCausalLM'),('GPTNeoXConfig','GPTNeoXForCausalLM'),('FalconConfig','FalconForCausalLM'),('OlmoConfig','OlmoForCausalLM'),('StableLmConfig','StableLmForCausalLM'),('GPTBigCodeConfig','GPTBigCodeForCausalLM'),('GPT2Config','GPT2LMHeadModel'),('OPTConfig','OPTForCausalLM'),('BloomConfig','BloomForCausalLM'),('MambaConfig','MambaForCausalLM'),('MixtralConfig','MixtralForCausalLM'),('RwkvConfig','RwkvForCausalLM'),('CohereConfig','CohereForCausalLM'),('GraniteConfig','GraniteForCausalLM'),('SmolLM3Config','SmolLM3ForCausalLM'),('GptOssConfig','GptOssForCausalLM'),('Qwen2MoeConfig','Qwen2MoeForCausalLM')]:
        kw=dict(num_key_value_heads=2)
        if a in('PhiConfig','GPTNeoXConfig','OlmoConfig','StableLmConfig'): kw={}
        if a.startswith('Gemma') or a=='GptOssConfig' or a=='Qwen3Config': kw=dict(num_key_value_heads=2,head_dim=32)
        if a=='GPT2Config': kw=dict(n_embd=128,n_layer=3,n_head=4)
        if a=='OPTConfig': kw=dict(ffn_dim=384,word_embed_proj_dim=128)
        if a=='MambaConfig': kw=dict(state_size=8)
        if a in('MixtralConfig',): kw=dict(num_key_value_heads=2,num_local_experts=4)
        if a in('Phi3Config',): kw=dict(num_key_value_heads=2,pad_token_id=0)
        if a=='GptOssConfig': kw.update(num_local_experts=4)
        if a=='Qwen2MoeConfig': kw.update(num_experts=4,moe_intermediate_size=64,shared_expert_intermediate_size=64)
        M['hf_'+b]=dec(a,b,**kw)
    def t5e():
        c=T.T5Config(vocab_size=1000,d_model=128,d_kv=32,d_ff=384,num_layers=3,num_heads=4); m=T.T5EncoderModel(c).eval()
        return m,(ids(40),ones(40)),['input_ids','attention_mask'],{0:{1:'seq'},1:{1:'seq'}}
    def t5():
        c=T.T5Config(vocab_size=1000,d_model=128,d_kv=32,d_ff=384,num_layers=3,num_heads=4); m=T.T5ForConditionalGeneration(c).eval()
        w=Pick(m,lambda m,i,d:m(input_ids=i,decoder_input_ids=d,use_cache=False).logits)
        return w,(ids(40),ids(8)),['input_ids','decoder_input_ids'],{0:{1:'seq'},1:{1:'dseq'}}
    def bart():
        c=T.BartConfig(vocab_size=1000,d_model=128,encoder_layers=2,decoder_layers=2,encoder_attention_heads=4,decoder_attention_heads=4,encoder_ffn_dim=384,decoder_ffn_dim=384); m=T.BartForConditionalGeneration(c).eval()
        w=Pick(m,lambda m,i,d:m(input_ids=i,decoder_input_ids=d,use_cache=False).logits)
        return w,(ids(40),ids(8)),['input_ids','decoder_input_ids'],None
    def whe():
        c=T.WhisperConfig(d_model=128,encoder_layers=2,decoder_layers=2,encoder_attention_heads=4,decoder_attention_heads=4,encoder_ffn_dim=384,decoder_ffn_dim=384,vocab_size=1000,pad_token_id=0,bos_token_id=1,eos_token_id=2,decoder_start_token_id=1); m=T.WhisperModel(c).eval()
        w=Pick(m,lambda m,x:m.encoder(x).last_hidden_state)
        return w,(torch.randn(1,80,3000),),['input_features'],None
    def whd():
        c=T.WhisperConfig(d_model=128,encoder_layers=2,decoder_layers=2,encoder_attention_heads=4,decoder_attention_heads=4,encoder_ffn_dim=384,decoder_ffn_dim=384,vocab_size=1000,pad_token_id=0,bos_token_id=1,eos_token_id=2,decoder_start_token_id=1); m=T.WhisperModel(c).eval()
        w=Pick(m,lambda m,i,h:m.decoder(input_ids=i,encoder_hidden_states=h,use_cache=False).last_hidden_state)
        return w,(ids(8),torch.randn(1,1500,128)),['input_ids','h'],None
    def w2v(cfg,cls,**kw):
        def f():
            c=getattr(T,cfg)(hidden_size=128,num_hidden_layers=2,num_attention_heads=4,intermediate_size=384,conv_dim=(64,)*7,**kw); m=getattr(T,cls)(c).eval()
            w=Pick(m,lambda m,x:m(x).last_hidden_state)
            return w,(torch.randn(1,16000),),['audio'],None
        return f
    def vis(cfg,cls,size=224,names=('pixel_values',),post=None,**kw):
        def f():
            c=getattr(T,cfg)(**kw); m=getattr(T,cls)(c).eval()
            w=Pick(m,post or (lambda m,x:m(x)[0]))
            return w,(torch.randn(1,3,size,size),),list(names),None
        return f
    VH=dict(hidden_size=128,num_hidden_layers=3,num_attention_heads=4,intermediate_size=384)
    M.update({'hf_t5enc':t5e,'hf_t5':t5,'hf_bart':bart,'hf_whisper_enc':whe,'hf_whisper_dec':whd,
     'hf_wav2vec2':w2v('Wav2Vec2Config','Wav2Vec2Model'),'hf_hubert':w2v('HubertConfig','HubertModel'),'hf_wavlm':w2v('WavLMConfig','WavLMModel'),
     'hf_dinov2':vis('Dinov2Config','Dinov2Model',hidden_size=128,num_hidden_layers=3,num_attention_heads=4),
     'hf_segformer':vis('SegformerConfig','SegformerForSemanticSegmentation'),
     'hf_yolos':vis('YolosConfig','YolosForObjectDetection',image_size=[224,224],**VH),
     'hf_clip_vision':vis('CLIPVisionConfig','CLIPVisionModel',**VH),
     'hf_siglip_vision':vis('SiglipVisionConfig','SiglipVisionModel',**VH),
     'hf_mobilevit':vis('MobileViTConfig','MobileViTModel',256),
     'hf_depth_anything':vis('DepthAnythingConfig','DepthAnythingForDepthEstimation',224,backbone_config=T.Dinov2Config(hidden_size=128,num_hidden_layers=4,num_attention_heads=4,image_size=224,out_features=['stage1','stage2','stage3','stage4'],reshape_hidden_states=False,apply_layernorm=True),neck_hidden_sizes=[16,32,64,64],fusion_hidden_size=32,reassemble_hidden_size=128),
     'hf_swin2sr':vis('Swin2SRConfig','Swin2SRForImageSuperResolution',64,embed_dim=60,depths=[2,2],num_heads=[6,6]),
     'hf_resnet':vis('ResNetConfig','ResNetModel'),'hf_upernet':None,
    })
    M.pop('hf_upernet')
    def encodec():
        c=T.EncodecConfig(); m=T.EncodecModel(c).eval(); w=Pick(m,lambda m,x:m.encoder(x)); return w,(torch.randn(1,1,24000),),['audio'],None
    def dac():
        c=T.DacConfig(encoder_hidden_size=16,decoder_hidden_size=128,downsampling_ratios=[2,4,8],upsampling_ratios=[8,4,2],n_codebooks=2); m=T.DacModel(c).eval(); w=Pick(m,lambda m,x:m.decoder(m.encoder(x))); return w,(torch.randn(1,1,4096),),['audio'],None
    def vits():
        c=T.VitsConfig(vocab_size=40,hidden_size=64,num_hidden_layers=2,ffn_dim=128,upsample_initial_channel=64,flow_size=64,spectrogram_bins=65); m=T.VitsModel(c).eval()
        w=Pick(m,lambda m,x:m.decoder(x)); return w,(torch.randn(1,64,50),),['z'],None
    def hifigan():
        c=T.SpeechT5HifiGanConfig(upsample_initial_channel=128); m=T.SpeechT5HifiGan(c).eval(); return m,(torch.randn(50,80),),['mel'],None
    def ast():
        c=T.ASTConfig(max_length=256,**VH); m=T.ASTModel(c).eval(); return Pick(m,lambda m,x:m(x)[0]),(torch.randn(1,256,128),),['x'],None
    def patchtst():
        c=T.PatchTSTConfig(num_input_channels=4,context_length=128,d_model=64,prediction_length=24); m=T.PatchTSTForPrediction(c).eval(); return Pick(m,lambda m,x:m(x).prediction_outputs),(torch.randn(1,128,4),),['x'],None
    def detr():
        c=T.DetrConfig(use_timm_backbone=False,use_pretrained_backbone=False,backbone=None,backbone_config=T.ResNetConfig(out_features=['stage4'],depths=[1,1,1,1],hidden_sizes=[64,128,256,512]),d_model=128,encoder_layers=2,decoder_layers=2,encoder_attention_heads=4,decoder_attention_heads=4,encoder_ffn_dim=256,decoder_ffn_dim=256,num_queries=30); m=T.DetrForObjectDetection(c).eval()
        return Pick(m,lambda m,x:(lambda o:(o.logits,o.pred_boxes))(m(x))),(torch.randn(1,3,256,256),),['x'],None
    def rtdetr():
        c=T.RTDetrConfig(use_timm_backbone=False,encoder_layers=1,decoder_layers=2,num_queries=50,d_model=64,encoder_hidden_dim=64,decoder_attention_heads=4,encoder_attention_heads=4,encoder_ffn_dim=128,decoder_ffn_dim=128,decoder_in_channels=[64,64,64]); m=T.RTDetrForObjectDetection(c).eval()
        return Pick(m,lambda m,x:(lambda o:(o.logits,o.pred_boxes))(m(x))),(torch.randn(1,3,320,320),),['x'],None
    M.update({'hf_encodec':encodec,'hf_dac':dac,'hf_vits':vits,'hf_hifigan':hifigan,'hf_ast':ast,'hf_patchtst':patchtst,'hf_detr':detr,'hf_rtdetr':rtdetr})
    def tv(f,s=(1,3,224,224),post=None,**kw):
        def g():
            m=f(weights=None,**kw).eval(); return (Pick(m,post) if post else m),(torch.randn(*s),),['x'],None
        return g
    D,S,Q=V.detection,V.segmentation,V.video
    M.update({'tv_deeplab':tv(S.deeplabv3_mobilenet_v3_large,(1,3,256,256),lambda m,x:m(x)['out'],weights_backbone=None),'tv_lraspp':tv(S.lraspp_mobilenet_v3_large,(1,3,256,256),lambda m,x:m(x)['out'],weights_backbone=None),
    'tv_r3d':tv(Q.r3d_18,(1,3,8,56,56)),'tv_mc3':tv(Q.r2plus1d_18,(1,3,8,56,56)),'tv_s3d':tv(Q.s3d,(1,3,16,112,112)),'tv_mvit':tv(Q.mvit_v2_s,(1,3,16,224,224)),
    'tv_ssdlite':tv(D.ssdlite320_mobilenet_v3_large,(1,3,320,320),lambda m,x:tuple(m([x[0]])[0].values()),weights_backbone=None),
    'tv_retina':tv(D.retinanet_resnet50_fpn,(1,3,224,224),lambda m,x:tuple(m([x[0]])[0].values()),weights_backbone=None,min_size=224,max_size=224),
    'tv_faster':tv(D.fasterrcnn_mobilenet_v3_large_320_fpn,(1,3,224,224),lambda m,x:tuple(m([x[0]])[0].values()),weights_backbone=None,min_size=224,max_size=224),
    'tv_fcos':tv(D.fcos_resnet50_fpn,(1,3,224,224),lambda m,x:tuple(m([x[0]])[0].values()),weights_backbone=None,min_size=224,max_size=224),
    'tv_maskrcnn':tv(D.maskrcnn_resnet50_fpn,(1,3,160,160),lambda m,x:tuple(m([x[0]])[0].values()),weights_backbone=None,min_size=160,max_size=160),
    'tv_maxvit':tv(V.maxvit_t),'tv_shuffle':tv(V.shufflenet_v2_x1_0),'tv_mnasnet':tv(V.mnasnet0_5),'tv_googlenet':tv(V.googlenet,init_weights=False,aux_logits=False)})
    class Rnn(torch.nn.Module):
        def __init__(s,k):
            super().__init__(); s.r=getattr(torch.nn,k)(40,64,2,batch_first=True,bidirectional=True); s.l=torch.nn.Linear(128,30)
        def forward(s,x): return s.l(s.r(x)[0])
    for k in('LSTM','GRU','RNN'): M['rnn_'+k]=(lambda k:lambda:(Rnn(k).eval(),(torch.randn(1,60,40),),['x'],None))(k)
    class MHA(torch.nn.Module):
        def __init__(s): super().__init__(); s.e=torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(128,4,256,batch_first=True,norm_first=True),3); s.d=torch.nn.TransformerDecoder(torch.nn.TransformerDecoderLayer(128,4,256,batch_first=True),2)
        def forward(s,x,y): return s.d(y,s.e(x))
    M['nn_transformer']=lambda:(MHA().eval(),(torch.randn(1,50,128),torch.randn(1,20,128)),['x','y'],None)

    return M


def make(a):
    import torch
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)

    def late(*_):
        raise TimeoutError("export")

    signal.signal(signal.SIGALRM, late)
    for name, build in architectures().items():
        d = f"{a.out}/{name}.{a.exporter}"
        if not re.search(a.k, name) or os.path.exists(d + "/in.npz") or os.path.exists(d + "/failed"):
            continue
        os.makedirs(d, exist_ok=True)
        try:
            signal.alarm(150)
            torch.manual_seed(0)
            m, args, names, dims = build()
            # Statistics as trained ones have them, so that what they become part of is seen.
            for k, b in m.named_buffers():
                if "running_mean" in k:
                    b.normal_(0, 0.1)
                if "running_var" in k:
                    b.uniform_(0.7, 1.3)
            with torch.no_grad():
                if a.exporter == "script":
                    axes = {names[i]: v for i, v in dims.items()} if dims else None
                    torch.onnx.export(m, args, d + "/model.onnx", input_names=names, opset_version=17, dynamo=False, dynamic_axes=axes)
                else:
                    torch.onnx.export(m, args, d + "/model.onnx", input_names=names, dynamo=True, external_data=False, verbose=False)
            np.savez(d + "/in.npz", **{n: x.numpy() for n, x in zip(names, args)})
            print(name, os.path.getsize(d + "/model.onnx"), flush=True)
        except Exception as e:
            open(d + "/failed", "w").write(traceback.format_exc())
            print(name, "not exported:", type(e).__name__, str(e)[:100].replace("\n", " "), flush=True)
        finally:
            signal.alarm(0)


def difference(wanted, found):
    worst = 0.0
    for x, y in zip(wanted, found):
        if x.shape != y.shape:
            return float("inf")
        if x.size == 0:
            continue
        if x.dtype.kind != "f":
            worst = max(worst, float((x != y).mean()))
            continue
        x, y = x.astype(np.float64), y.astype(np.float64)
        worst = max(worst, float(np.nanmax(np.abs(x - y)) / max(np.nanmax(np.abs(x)), 1e-30)))
    return worst


def check(a):
    import onnxruntime as ort

    def session(path, optimise):
        o = ort.SessionOptions()
        o.log_severity_level, o.intra_op_num_threads = 4, a.threads
        if not optimise:
            o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])

    def median(s, feeds):
        times, start = [], time.perf_counter()
        while time.perf_counter() - start < 0.4 or len(times) < 3:
            t = time.perf_counter()
            s.run(None, feeds)
            times.append(time.perf_counter() - t)
        return float(np.median(times)) * 1e3

    ratios = []
    with tempfile.TemporaryDirectory() as t:
        for n in sorted(os.listdir(a.out)):
            path, inputs = f"{a.out}/{n}/model.onnx", f"{a.out}/{n}/in.npz"
            if not re.search(a.k, n) or not os.path.exists(inputs):
                continue
            run = ["--threads", str(a.threads)]
            try:
                s = session(path, True)
                feeds = {k: v for k, v in np.load(inputs).items() if k in [i.name for i in s.get_inputs()]}
                np.savez(t + "/in.npz", **feeds)
                theirs, wanted = s.run(None, feeds), session(path, False).run(None, feeds)
            except Exception as e:
                print(n, "ONNX Runtime:", str(e)[:100].replace("\n", " "), flush=True)
                continue
            r = subprocess.run([a.cli, "run", path, "--inputs", t + "/in.npz", "--outputs", t + "/out.npz", *run], capture_output=True, text=True)
            if r.returncode:
                print(n, "exit", r.returncode, r.stderr.strip()[:200], flush=True)
                continue
            z = np.load(t + "/out.npz")
            found = [z[o.name] for o in s.get_outputs()]
            line = f"{n} {difference(wanted, found):.1e} (ONNX Runtime {difference(wanted, theirs):.1e})"
            if a.times:
                before = median(s, feeds)
                r = subprocess.run([a.cli, "bench", path, "--inputs", t + "/in.npz", "--seconds", "0.5", "--json", *run], capture_output=True, text=True)
                ours, best = json.loads(r.stdout)["median_ms"], min(before, median(s, feeds))
                ratios.append(ours / best)
                line += f" {best:.3f} ms, ours {ours:.3f} ms, ratio {ours / best:.2f}"
            print(line, flush=True)
    if ratios:
        print(f"geometric mean {float(np.exp(np.mean(np.log(ratios)))):.3f}, above 1: {sum(r > 1 for r in ratios)} of {len(ratios)}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["make", "check"]), p.add_argument("out")
    p.add_argument("-k", default="")
    p.add_argument("--exporter", choices=["script", "dynamo"], default="script")
    p.add_argument("--cli"), p.add_argument("--threads", type=int, default=1), p.add_argument("--times", action="store_true")
    a = p.parse_args()
    make(a) if a.what == "make" else check(a)


main()
