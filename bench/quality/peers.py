#!/usr/bin/env python3
"""llama.cpp's quantizations of the table's models: MODEL.TYPE.gguf and what making them took, for `run.py --peers`.

    peers.py --bin llama.cpp/build/bin --model model.gguf --calib c4.txt -o FOLDER [--types Q4_0,Q2_K]

The source is expanded to F32 (exactly the teacher of the table), the importance matrix is measured on the source file with
the same text and as many windows of 512 tokens as ours are calibrated on. Every result is expanded to F32 again
(MODEL.TYPE.F32.gguf), which is what `crumb eval kl` reads: the peer's weights by the protocol of all rows, activations and
KV cache in float. What is there already is not made again.
"""
import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
TYPES = "Q4_0,Q4_K_M,Q3_K_M,Q2_K,IQ2_XXS"


def die_with_parent():
    """What run.py ends in time must not go on below it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run(command, output, threads):
    """Runs it unless `output` is there; seconds and peak memory, which stay beside the output."""
    about = output + ".json"
    if os.path.exists(about):
        with open(about) as file:
            return json.load(file)
    start = time.monotonic()
    with open(output + ".log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"peers.py: exit {process.returncode} of {' '.join(command)}, see {output}.log")
    made = {"seconds": time.monotonic() - start, "peak_rss_bytes": usage.ru_maxrss * 1024, "made_threads": threads}
    with open(about, "w") as file:
        json.dump(made, file)
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="folder of llama-quantize and llama-imatrix")
    parser.add_argument("--model", required=True)
    parser.add_argument("--calib", required=True, help="calibration text")
    parser.add_argument("-o", "--output", required=True, help="folder")
    parser.add_argument("--types", default=TYPES)
    parser.add_argument("--calib-windows", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    os.makedirs(options.output, exist_ok=True)
    stem = os.path.join(options.output, os.path.basename(options.model).removesuffix(".gguf"))
    threads = str(options.threads)
    quantize, imatrix = (os.path.join(options.bin, name) for name in ("llama-quantize", "llama-imatrix"))

    def expand(source, output):
        run([quantize, "--allow-requantize", source, output, "F32", threads], output, options.threads)

    expand(options.model, stem + ".F32.gguf")
    first = run([imatrix, "-m", options.model, "-f", options.calib, "-o", stem + ".imatrix.gguf", "-c", "512", "-b", "512",
                 "--chunks", str(options.calib_windows), "-t", threads, "--no-ppl"], stem + ".imatrix.gguf",
                options.threads)
    for kind in options.types.split(","):
        output = f"{stem}.{kind}.gguf"
        about = output + ".json"
        known = os.path.exists(about)
        made = run([quantize, "--imatrix", stem + ".imatrix.gguf", stem + ".F32.gguf", output, kind, threads], output,
                   options.threads)
        if not known:
            made["seconds"] += first["seconds"]
            made["peak_rss_bytes"] = max(made["peak_rss_bytes"], first["peak_rss_bytes"])
            with open(about, "w") as file:
                json.dump(made, file)
        expand(output, f"{stem}.{kind}.F32.gguf")


if __name__ == "__main__":
    main()
