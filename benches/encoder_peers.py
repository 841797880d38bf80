#!/usr/bin/env python3
"""Time what others would run in place of `asr`: HuBERT base in PyTorch and ONNX Runtime.

Writes a HuBERT base (95 M, seeded random weights) as a Hugging Face folder where there is
none, so that `asr bench speed --model FOLDER` times the same weights, then each peer on the
same waveform. One JSON object per line; `seconds` is the median of `--repeat` runs after one
to warm up, cosines are of each frame with PyTorch in f32.

  python3 -m venv .venv && . .venv/bin/activate
  pip install torch transformers onnx onnxruntime onnxscript safetensors
  python benches/encoder_peers.py --model-dir hubert-base --seconds 10 --threads 2
"""
import argparse, json, os, resource, statistics, time

parser = argparse.ArgumentParser()
parser.add_argument("--model-dir", required=True, help="folder of the random HuBERT base, made where there is none")
parser.add_argument("--seconds", type=float, default=10.0)
parser.add_argument("--batch", type=int, default=1)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--repeat", type=int, default=5)
parser.add_argument("--peers", default="torch-f32,torch-bf16,ort-f32", help="any of torch-f32, torch-bf16, ort-f32")
args = parser.parse_args()
os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))

import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

torch.set_num_threads(args.threads)
torch.manual_seed(1234)
if not os.path.exists(os.path.join(args.model_dir, "config.json")):
    HubertModel(HubertConfig(apply_spec_augment=False)).eval().save_pretrained(args.model_dir)
    Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=False).save_pretrained(args.model_dir)
wave = torch.randn(args.batch, int(16000 * args.seconds), generator=torch.Generator().manual_seed(7)) * 0.1
peers = args.peers.split(",")


def load(**options):
    return HubertModel.from_pretrained(args.model_dir, **options).eval()


def time_of(name, run, **extra):
    run()
    times = []
    for _ in range(args.repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    median = statistics.median(times)
    print(json.dumps({
        "peer": name, "batch": args.batch, "clip_s": args.seconds, "threads": args.threads,
        "seconds": round(median, 4), "best": round(min(times), 4),
        "rtf": round(median / (args.batch * args.seconds), 5),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6), **extra,
    }), flush=True)


with torch.inference_mode():
    if "torch-f32" in peers or "torch-bf16" in peers:
        model = load(attn_implementation="sdpa")
        reference = model(wave).last_hidden_state
        if "torch-f32" in peers:
            time_of("torch-f32", lambda: model(wave))
        if "torch-bf16" in peers:
            low = load(attn_implementation="sdpa", dtype=torch.bfloat16)
            short = wave.bfloat16()
            cosine = torch.nn.functional.cosine_similarity(low(short).last_hidden_state.float(), reference, dim=-1)
            time_of("torch-bf16", lambda: low(short), cosine_min=round(cosine.min().item(), 5))
if "ort-f32" in peers:
    import onnxruntime

    path = os.path.join(args.model_dir, f"encoder-{args.batch}x{int(args.seconds * 1000)}ms.onnx")
    if not os.path.exists(path):
        torch.onnx.export(
            load(attn_implementation="eager"), (wave,), path, input_names=["waveform"], output_names=["hidden"],
            opset_version=17, dynamo=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    time_of("ort-f32", lambda: session.run(["hidden"], {"waveform": wave.numpy()}))
