#!/usr/bin/env python3
"""Quantizes a model in every way of a table and measures what is lost: divergence from the source on a text.

    run.py --crumb build/release/crumb --model model.gguf --text wiki.test.raw --calib c4.txt -o results.json
    run.py --table results.json

Results are kept in one JSON file, written after every run; what is there already is not run again, unless the binary,
the model, a text or the arguments differ. The evaluation text must not be the calibration text: equal files are
refused. `--only PATTERN` takes the configurations whose name matches.
"""
import argparse
import datetime
import fnmatch
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SCHEMA = "crumb.quality/1"
COLUMNS = ["configuration", "linear bpw", "head bits", "KLD", "± s.e.", "to control", "top-1 %", "ppl ratio", "s", "peak MB"]


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()[:16]


def processor():
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def call(command):
    """Runs it; its standard output as JSON. A failure ends the program with the command's own words."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f"run.py: exit {done.returncode} of {shlex.join(command)}\n{done.stderr.decode(errors='replace')}")
    return json.loads(done.stdout)


def measure(options, configuration, folder):
    output = os.path.join(folder, "model.crumb")
    threads = ["-t", str(options.threads)]
    made = call([options.crumb, "quantize", options.model, "-o", output, "--force", "--json", "-q",
                 "--calib", options.calib, "--calib-windows", str(options.calib_windows), "--check-windows", "0",
                 *threads, *shlex.split(configuration["args"])])
    kl = call([options.crumb, "eval", "kl", "--base", options.model, "-m", output, "-f", options.text, "--json", "-q",
               "--limit", str(options.windows), *threads, *(["--all-positions"] if options.all_positions else [])])
    os.remove(output)
    return {
        "linear_bpw": made["linear_bpw"], "head_bits": made["head_bits"], "total_bpw": made["total_bpw"],
        "file_bytes": made["file_bytes"], "seconds": made["seconds"], "peak_rss_bytes": made["peak_rss_bytes"],
        "mean_kld": kl["mean_kld"], "stderr_kld": kl["stderr_kld"], "kld_p99": kl["kld_p99"], "top1": kl["top1"],
        "ppl": kl["ppl"], "ppl_base": kl["ppl_base"], "ppl_ratio": kl["ppl_ratio"], "tokens": kl["tokens"],
        "recipe": made["recipe"],
    }


def circumstances(options):
    """What a number depends on beside its arguments."""
    version = call([options.crumb, "version", "--json"])
    return {
        "crumb": version, "model": os.path.basename(options.model), "model_sha256": sha256(options.model),
        "text": os.path.basename(options.text), "text_sha256": sha256(options.text),
        "calibration": os.path.basename(options.calib), "calibration_sha256": sha256(options.calib),
        "calibration_windows": options.calib_windows, "windows": options.windows,
        "all_positions": options.all_positions,
    }


def load(path):
    if not os.path.exists(path):
        return {"schema": SCHEMA, "runs": []}
    with open(path) as file:
        results = json.load(file)
    if results.get("schema") != SCHEMA:
        sys.exit(f"run.py: {path}: expected schema {SCHEMA}, found {results.get('schema')}")
    return results


def save(path, results):
    temporary = path + ".tmp"
    with open(temporary, "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    os.replace(temporary, path)


def run_all(options):
    with open(options.configurations) as file:
        configurations = json.load(file)["configurations"]
    around = circumstances(options)
    if around["text_sha256"] == around["calibration_sha256"]:
        sys.exit("run.py: calibration and evaluation text are the same file")
    results = load(options.output)
    for configuration in configurations:
        if not fnmatch.fnmatch(configuration["name"], options.only):
            continue
        same = [r for r in results["runs"] if r["name"] == configuration["name"] and r["args"] == configuration["args"]
                and r["circumstances"] == around]
        if same:
            continue
        print(f"{configuration['name']} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            measured = measure(options, configuration, folder)
        results["runs"].append({
            **{key: configuration.get(key, "") for key in ("name", "args", "control")},
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "cpu": processor(), "threads": options.threads, **measured, "circumstances": around})
        save(options.output, results)
    return results


def table(results):
    """Markdown; of several runs of a configuration the last one."""
    last = {run["name"]: run for run in results["runs"]}
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for run in last.values():
        control = last.get(run["control"])
        ratio = f"{run['mean_kld'] / control['mean_kld']:.2f} x {run['control']}" if control else ""
        lines.append("| " + " | ".join([
            run["name"], f"{run['linear_bpw']:.3f}", f"{run['head_bits']:.2f}", f"{run['mean_kld']:.4f}",
            f"{run['stderr_kld']:.4f}", ratio, f"{100 * run['top1']:.1f}", f"{run['ppl_ratio']:.3f}",
            f"{run['seconds']:.0f}", f"{run['peak_rss_bytes'] / 1e6:.0f}"]) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", metavar="RESULTS", help="print the table of a file of results and stop")
    parser.add_argument("--crumb", default="build/release/crumb")
    parser.add_argument("--model")
    parser.add_argument("--text", help="evaluation text")
    parser.add_argument("--calib", help="calibration text")
    parser.add_argument("-o", "--output", help="file of results")
    parser.add_argument("--configurations", default=os.path.join(HERE, "configurations.json"))
    parser.add_argument("--only", default="*")
    parser.add_argument("--calib-windows", type=int, default=32)
    parser.add_argument("--windows", type=int, default=16, help="evaluation windows of 512 tokens")
    parser.add_argument("--all-positions", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scratch", help="folder for the models while they are measured")
    options = parser.parse_args()
    if options.table:
        print(table(load(options.table)))
        return
    for name in ("model", "text", "calib", "output"):
        if getattr(options, name) is None:
            parser.error(f"--{name} is required")
    print(table(run_all(options)))


if __name__ == "__main__":
    main()
