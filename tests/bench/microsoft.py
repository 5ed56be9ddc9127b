#!/usr/bin/env python3
"""Operators of the com.microsoft domain beside ONNX Runtime, case by case.

  microsoft.py CLI [REGEX]

Each case is one node on seeded inputs: `run`, `run --reference`, and the file `optimize` writes, in ONNX Runtime. Quantized
results may differ by one step. A case that ONNX Runtime itself refuses is named and passed over. The exit code is the number
of differences. Needs numpy, onnx and onnxruntime.
"""
import numpy as np, onnx, onnxruntime as ort, subprocess, sys, tempfile, re
from onnx import helper as h, TensorProto as T, numpy_helper as nh
cli=sys.argv[1]; pat=sys.argv[2] if len(sys.argv)>2 else ''
rng=np.random.default_rng(0)
NP={np.dtype('float32'):T.FLOAT,np.dtype('float16'):T.FLOAT16,np.dtype('uint8'):T.UINT8,np.dtype('int8'):T.INT8,np.dtype('int32'):T.INT32,np.dtype('int64'):T.INT64,np.dtype('bool'):T.BOOL,np.dtype('uint32'):T.UINT32}
f=lambda *s: rng.standard_normal(s).astype(np.float32)
u8=lambda *s: rng.integers(0,256,s).astype(np.uint8)
i8=lambda *s: rng.integers(-128,128,s).astype(np.int8)
sc=lambda v: np.float32(v)
cases=[]
def case(name,op,ins,outs=1,tol=1e-4,const=(),domain='com.microsoft',**attrs): cases.append((name,op,ins,outs,tol,const,domain,attrs))
x=f(2,5,8)
case('gelu','Gelu',[x]); case('biasgelu','BiasGelu',[x,f(8)]); case('fastgelu','FastGelu',[x]); case('fastgelub','FastGelu',[x,f(8)]); case('quick','QuickGelu',[x],alpha=1.5)
case('biassoftmax','BiasSoftmax',[f(2,3,4,6),f(2,1,4,6)],axis=3,is_inner_broadcast=1)
for act,p in (('Relu',None),('LeakyRelu',[0.1]),('Clip',[-0.5,0.5]),('HardSigmoid',[0.3,0.4]),('Tanh',None),('Sigmoid',None)):
    case('fusedconv'+act,'FusedConv',[f(1,4,7,7),f(6,4,3,3),f(6)],activation=act,pads=[1,1,1,1],**({'activation_params':p} if p else {}))
case('fusedconvz','FusedConv',[f(1,4,7,7),f(6,4,3,3),f(6),f(1,6,5,5)],activation='Relu')
case('fusedgemm','FusedGemm',[f(3,4),f(5,4),f(5)],transB=1,alpha=0.5,activation='LeakyRelu',activation_alpha=0.2)
case('fmm1','FusedMatMul',[f(2,3,4),f(2,5,4)],transB=1,alpha=0.3)
case('fmm2','FusedMatMul',[f(2,4,3),f(2,4,5)],transA=1)
case('fmm3','FusedMatMul',[f(3,2,4),f(2,4,5)],transBatchA=1)
case('fmm4','FusedMatMul',[f(4,2,3),f(2,4,5)],transBatchA=1,transA=1)
case('fmm5','FusedMatMul',[f(2,3,4),f(5,2,4)],transBatchB=1,transB=1)
case('tmm','TransposeMatMul',[f(2,4,3),f(2,4,5)],transA=1)
case('sln','SkipLayerNormalization',[x,f(2,5,8),f(8),f(8),f(8)],outs=[0,3],epsilon=1e-5)
case('sln2','SkipLayerNormalization',[x,f(2,5,8),f(8)])
case('srms','SkipSimplifiedLayerNormalization',[x,f(2,5,8),f(8),f(8)],outs=[0,3],epsilon=1e-5)
case('simple','SimplifiedLayerNormalization',[x,f(8)],domain='',axis=-1,epsilon=1e-5)
ids=rng.integers(0,10,(2,5)).astype(np.int32)
case('embed','EmbedLayerNormalization',[ids,rng.integers(0,2,(2,5)).astype(np.int32),f(10,8),f(7,8),f(2,8),f(8),f(8),np.array([[1,1,1,0,0],[1,1,1,1,1]],np.int32)],outs=[0,1,2])
case('embed2','EmbedLayerNormalization',[ids,None,f(10,8),f(7,8),None,f(8),f(8)],outs=[0,1])
case('groupnorm','GroupNorm',[f(2,4,4,8),f(8),f(8)],groups=4,activation=1,channels_last=1)
q=lambda z: np.uint8(z)
A,B=u8(2,3,4,4),u8(2,3,4,4)
case('qadd','QLinearAdd',[A,sc(.1),q(120),B,sc(.2),q(100),sc(.25),q(128)],tol='q')
case('qaddb','QLinearAdd',[A,sc(.1),q(120),u8(3,1,1),sc(.2),q(100),sc(.25),q(128)],tol='q')
case('qadd8','QLinearAdd',[i8(2,3),sc(.1),np.int8(3),i8(2,3),sc(.2),np.int8(-3),sc(.25),np.int8(0)],tol='q')
case('qmul','QLinearMul',[A,sc(.01),q(120),B,sc(.02),q(100),sc(.02),q(128)],tol='q')
case('qsig','QLinearSigmoid',[A,sc(.05),q(120),sc(1/256),q(0)],tol='q')
case('qleaky','QLinearLeakyRelu',[A,sc(.05),q(120),sc(.04),q(20)],tol='q',alpha=0.1)
case('qavg','QLinearAveragePool',[u8(1,3,6,6),sc(.05),q(120),sc(.04),q(110)],tol='q',kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1])
case('qavgl','QLinearAveragePool',[u8(1,6,6,3),sc(.05),q(120),sc(.04),q(110)],tol='q',kernel_shape=[3,3],channels_last=1)
case('qgap','QLinearGlobalAveragePool',[A,sc(.05),q(120),sc(.04),q(110)],tol='q')
case('qgapl','QLinearGlobalAveragePool',[A,sc(.05),q(120),sc(.04),q(110)],tol='q',channels_last=1)
case('qmean','QLinearReduceMean',[A,sc(.05),q(120),sc(.04),q(110)],tol='q',axes=[2,3],keepdims=1)
case('qsoft','QLinearSoftmax',[u8(2,7),sc(.05),q(120),sc(1/256),q(0)],tol='q',axis=-1,opset=13)
case('qsoft12','QLinearSoftmax',[u8(2,3,4),sc(.05),q(120),sc(1/256),q(0)],tol='q',axis=1,opset=12)
case('qwhere','QLinearWhere',[rng.integers(0,2,(2,3)).astype(bool),u8(2,3),sc(.1),q(100),u8(2,3),sc(.2),q(110),sc(.2),q(120)],tol='q')
case('qcat','QLinearConcat',[sc(.1),q(128),u8(2,3),sc(.1),q(100),u8(2,4),sc(.05),q(120)],tol='q',axis=1)
case('qgemm','QGemm',[u8(3,6),sc(.02),q(120),u8(6,4),sc(.01),q(130),rng.integers(-500,500,4).astype(np.int32),sc(.05),q(128)],tol='q')
case('qgemmf','QGemm',[u8(3,6),sc(.02),q(120),i8(4,6),np.float32([.01,.02,.03,.04]),np.int8([0,1,2,3]),rng.integers(-500,500,4).astype(np.int32)],transB=1)
case('qconvms','QLinearConv',[u8(1,6,6,3),sc(.02),q(120),i8(4,3,3,3),sc(.01),np.int8(0),sc(.05),q(128)],tol='q',channels_last=1)
case('dqmm','DynamicQuantizeMatMul',[f(2,3,8),i8(8,5),sc(.02),np.int8(2),f(5)],tol=1e-3)
case('dqmmc','DynamicQuantizeMatMul',[f(3,8),i8(8,5),np.abs(f(5)),i8(5)],tol=1e-3)
case('mmitf','MatMulIntegerToFloat',[u8(3,8),i8(8,5),sc(.1),np.abs(f(5)),q(120),i8(5),f(5)],tol=1e-3)
case('q','QuantizeLinear',[f(2,3),sc(.1),q(120)],tol='q'); case('dq','DequantizeLinear',[u8(2,3),np.float32([.1,.2,.3]),np.uint8([1,2,3])],axis=1)
for bits,K,blk in ((4,64,32),(4,48,16),(4,50,32),(8,64,32),(4,96,32)):
    N=12; nb=-(-K//blk)
    B=rng.integers(0,256,(N,nb,blk*bits//8)).astype(np.uint8); S=np.abs(f(N*nb))*0.1
    for zp in (0,1):
        for c in ((1,2,3),()):
            ins=[f(2,3,K),B,S]+([rng.integers(0,256,N*(-(-nb*bits//8))).astype(np.uint8)] if zp else [])
            case(f'nbits{bits}_{K}_{blk}_{zp}_{len(c)}','MatMulNBits',ins,const=tuple(i for i in c if i<len(ins)),tol=1e-4,K=K,N=N,bits=bits,block_size=blk)
case('gbq','GatherBlockQuantized',[u8(10,16),rng.integers(0,10,(2,3)).astype(np.int64),f(10,2),u8(10,1)],const=(0,2,3),block_size=16,quantize_axis=1,gather_axis=0,bits=4)
case('gbq2','GatherBlockQuantized',[u8(10,16),rng.integers(0,10,(2,3)).astype(np.int64),f(10,2)],const=(0,2),block_size=16,quantize_axis=1,gather_axis=0,bits=4)
H=2; 
inp=f(2,5,8)
case('att','Attention',[inp,f(8,24),f(24)],num_heads=H)
case('attcaus','Attention',[inp,f(8,24),f(24)],num_heads=H,unidirectional=1)
case('attm1','Attention',[inp,f(8,24),f(24),np.array([3,5],np.int32)],num_heads=H)
case('attm2','Attention',[inp,f(8,24),f(24),np.array([[1,1,1,0,0],[1,1,1,1,1]],np.int32)],num_heads=H)
case('attm3','Attention',[inp,f(8,24),f(24),np.array([3,5,0,1],np.int32)],num_heads=H)
case('attm4','Attention',[inp,f(8,24),f(24),(rng.random((2,5,5))>.3).astype(np.int32)],num_heads=H)
case('attpast','Attention',[f(2,1,8),f(8,24),f(24),None,f(2,2,H,3,4)],outs=[0,1],num_heads=H,unidirectional=1)
case('attpast3','Attention',[f(2,3,8),f(8,24),f(24),None,f(2,2,H,3,4)],outs=[0,1],num_heads=H,unidirectional=1)
case('attbias','Attention',[inp,f(8,24),f(24),None,None,f(1,H,5,5)],num_heads=H)
case('attsz','Attention',[inp,f(8,8+8+12),f(28)],num_heads=H,qkv_hidden_sizes=[8,8,12])
case('mha','MultiHeadAttention',[inp,f(2,6,8),f(2,6,8)],num_heads=H)
case('mhab','MultiHeadAttention',[inp,f(2,6,8),f(2,6,8),f(24)],num_heads=H)
case('mham','MultiHeadAttention',[inp,f(2,6,8),f(2,6,8),None,np.array([[1,1,1,0,0,0],[1]*6],np.int32)],num_heads=H)
case('mhabias','MultiHeadAttention',[inp,f(2,6,8),f(2,6,8),None,None,f(1,H,5,6)],num_heads=H)
case('mhapast','MultiHeadAttention',[inp,f(2,5,8),f(2,5,8),None,None,None,f(2,H,3,4),f(2,H,3,4)],outs=[0,1,2],num_heads=H)
case('mhau','MultiHeadAttention',[inp,f(2,5,8),f(2,5,8)],num_heads=H,unidirectional=1)
case('mhav','MultiHeadAttention',[inp,f(2,6,8),f(2,6,12)],num_heads=H,scale=.3)
case('mhaqkv','MultiHeadAttention',[f(2,5,H,3,4)],num_heads=H)
case('mhakv','MultiHeadAttention',[inp,f(2,6,H,2,4)],num_heads=H)
case('mha4','MultiHeadAttention',[inp,f(2,H,6,4),f(2,H,6,4)],num_heads=H)
def gqa(S,P,rot=0,packed=0,win=-1,cap=0.0,inter=0,B=2,lens=None):
    d=16; nh,kv=4,2
    tot=S+P
    ins=[f(B,S,(nh+2*kv)*d),None,None] if packed else [f(B,S,nh*d),f(B,S,kv*d),f(B,S,kv*d)]
    ins+= [f(B,kv,P,d),f(B,kv,P,d)] if P else [None,None]
    ins+= [np.array(lens if lens else [tot-1]*B,np.int32),np.array([tot],np.int32)]
    if rot: ins+=[np.cos(f(32,d//2)),np.sin(f(32,d//2))]
    case(f'gqa_{S}_{P}_{rot}{packed}_{win}_{cap}_{inter}{lens}','GroupQueryAttention',ins,outs=[0,1,2],num_heads=nh,kv_num_heads=kv,do_rotary=rot,local_window_size=win,softcap=cap,rotary_interleaved=inter)
gqa(5,0);gqa(5,0,1);gqa(1,4,1);gqa(3,4,1,B=1);gqa(5,0,1,1);gqa(5,0,1,0,2);gqa(5,0,0,0,-1,5.0);gqa(5,0,1,0,-1,0.0,1)
case('qatt','QAttention',[u8(2,5,8),i8(8,24),f(24),sc(.05),sc(.02),None,q(120),np.int8(0)],num_heads=H,tol=1e-3)
case('rot','RotaryEmbedding',[f(2,2,5,8),rng.integers(0,10,(2,5)).astype(np.int64),np.cos(f(10,4)),np.sin(f(10,4))])
case('rot0','RotaryEmbedding',[f(2,2,5,8),np.array([2],np.int64),np.cos(f(10,4)),np.sin(f(10,4))])
case('rot3','RotaryEmbedding',[f(2,5,16),np.array([2],np.int64),np.cos(f(10,4)),np.sin(f(10,4))],interleaved=1)
case('rot3p','RotaryEmbedding',[f(2,5,32),rng.integers(0,10,(2,5)).astype(np.int64),np.cos(f(10,4)),np.sin(f(10,4))],num_heads=2,rotary_embedding_dim=8)
for d,nd in (('forward',1),('bidirectional',2),('reverse',1)):
    Hd,I=8,6
    for per in (0,1):
        W,R=i8(nd,I,4*Hd),i8(nd,Hd,4*Hd)
        s=lambda: np.abs(f(nd,4*Hd) if per else f(nd))*0.01+0.005
        z=np.zeros((nd,4*Hd) if per else (nd,),np.int8)
        case(f'dql_{d}{per}','DynamicQuantizeLSTM',[f(7,1,I),W,R,f(nd,8*Hd),None,f(nd,1,Hd),f(nd,1,Hd),None,s(),z,s(),z],outs=[0,1,2],const=(1,2,8,9,10,11),direction=d,hidden_size=Hd,tol=1e-3)
case('dqlb','DynamicQuantizeLSTM',[f(7,3,6),i8(1,6,32),i8(1,8,32),f(1,64),np.array([7,5,3],np.int32),None,None,None,np.float32([.01]),np.int8([0]),np.float32([.01]),np.int8([0])],outs=[0,1,2],const=(1,2,8,9,10,11),hidden_size=8,tol=2e-2)
case('trilu','Trilu',[f(4,4)],upper=0); case('pad','Pad',[f(2,3),np.array([0,1,1,0],np.int64)]); case('expand','ExpandDims',[f(2,3),np.int32(1)],const=(1,))
case('nhwcmax','NhwcMaxPool',[u8(1,6,6,3)],kernel_shape=[2,2],strides=[2,2])
bad=0
for name,op,ins,outs,tol,const,domain,attrs in cases:
    if not re.search(pat,name): continue
    outl=list(range(outs)) if isinstance(outs,int) else outs
    onames=['' if i not in outl else f'o{i}' for i in range(max(outl)+1)]
    names=['' if v is None else f'i{k}' for k,v in enumerate(ins)]
    while names and not names[-1]: names.pop()
    node=h.make_node(op,names,onames,domain=domain,**attrs)
    inputs=[h.make_tensor_value_info(f'i{k}',NP[np.asarray(v).dtype],np.asarray(v).shape) for k,v in enumerate(ins) if v is not None and k not in const]
    inits=[nh.from_array(np.asarray(ins[k]),f'i{k}') for k in const]
    g=h.make_graph([node],'g',inputs,[h.make_tensor_value_info(o,T.UNDEFINED,None) for o in onames if o],inits)
    for o in g.output: o.type.Clear()
    m=h.make_model(g,opset_imports=[h.make_opsetid('',17),h.make_opsetid('com.microsoft',1)],ir_version=9)
    feeds={f'i{k}':np.asarray(v) for k,v in enumerate(ins) if v is not None and k not in const}
    so=ort.SessionOptions(); so.log_severity_level=4
    try:
        s=ort.InferenceSession(m.SerializeToString(),so,providers=['CPUExecutionProvider']); want=dict(zip([o.name for o in s.get_outputs()],s.run(None,feeds)))
    except Exception as e:
        print(name,'ORT:',str(e).replace('\n',' ')[:160]); continue
    with tempfile.TemporaryDirectory() as d:
        onnx.save(m,d+'/m.onnx'); np.savez(d+'/i.npz',**feeds)
        for flag in ([],['--reference']):
            r=subprocess.run([cli,'run',d+'/m.onnx','--inputs',d+'/i.npz','--outputs',d+'/o.npz',*flag],capture_output=True,text=True)
            if r.returncode: print(name,flag,'exit',r.returncode,r.stderr.strip()[:230]); bad+=1; continue
            got=np.load(d+'/o.npz')
            for k,w in want.items():
                gk=got[k].astype(np.float64); w=w.astype(np.float64)
                if gk.shape!=w.shape: print(name,flag,k,'shape',gk.shape,w.shape); bad+=1; continue
                e=np.abs(gk-w).max() if w.size else 0
                ok = e<=1 if tol=='q' else e<=tol*max(1,np.abs(w).max())
                if not ok or not np.isfinite(e): print(name,flag,k,'err',e,'of',np.abs(w).max()); bad+=1
        # the optimised file in ORT
        r=subprocess.run([cli,'optimize',d+'/m.onnx','-o',d+'/q.onnx','-q'],capture_output=True,text=True)
        if r.returncode==0:
            try:
                s=ort.InferenceSession(d+'/q.onnx',so,providers=['CPUExecutionProvider']); w2=dict(zip([o.name for o in s.get_outputs()],s.run(None,feeds)))
                for k,w in want.items():
                    e=np.abs(w2[k].astype(np.float64)-w.astype(np.float64)).max() if w.size else 0
                    ok = e<=1 if tol=='q' else e<=tol*max(1,np.abs(w).max())
                    if not ok: print(name,'optimized',k,'err',e,'of',np.abs(w).max()); bad+=1
            except Exception as e: print(name,'optimized in ORT:',str(e).replace('\n',' ')[:200]); bad+=1
        elif r.returncode!=3: print(name,'optimize exit',r.returncode,r.stderr[:200]); bad+=1
print('cases',len([c for c in cases if re.search(pat,c[0])]),'bad',bad)
sys.exit(min(bad,99))
