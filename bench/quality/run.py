#!/usr/bin/env python3
"""Quantizes models in every way of a table and measures what is lost: divergence from the source on a text.

    run.py --crumb build/release/crumb --model model.gguf --text wiki.test.raw --calib c4.txt -o results.json
    run.py --table results.json

Results are kept in one JSON file, written after every run; what is there already is not run again, unless the binary,
the model, a text or the arguments differ. The evaluation text must not be the calibration text: equal files are
refused. `--only PATTERN` takes the configurations whose name matches. `--jobs N` runs N at a time, each on processors
of its own (`--threads`); `--seconds S` stops after that time, and the same command goes on later. `--queue FILE` takes
what its lines say, in their order: patterns of a model and of a configuration's name, then about how many seconds it
takes, so that nothing is begun that would not end in time.

A configuration is a line of `crumb quantize` ("args"), a method of `crumb_study` ("study", with --study) or a type of
llama.cpp ("peer", with --peers, the folder that peers.py has filled, or fills then with --peers-bin).
"""
import argparse
import concurrent.futures
import datetime
import fnmatch
import hashlib
import json
import os
import platform
import queue
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from gguf_bits import gguf_bits  # noqa: E402

SCHEMA = "crumb.quality/1"
COLUMNS = ["configuration", "linear bpw", "head bits", "KLD", "± s.e.", "to control", "top-1 %", "ppl ratio", "s", "peak MB"]
PEER_ARGS = "llama-quantize --imatrix CALIBRATION {}"


class Failed(Exception):
    pass


class OutOfTime(Exception):
    pass


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


def stem(model):
    return os.path.basename(model).removesuffix(".gguf")


class Slot:
    """Some processors and the time until all must end: what one run at a time is carried out on."""

    def __init__(self, processors, end):
        self.processors = processors
        self.end = end  # time.monotonic(), or None

    def has(self, seconds):
        return self.end is None or time.monotonic() + seconds <= self.end

    def call(self, command):
        """Runs it; its standard output as a list of JSON lines, and what it used (resource.struct_rusage)."""
        wait = None if self.end is None else self.end - time.monotonic()
        if wait is not None and wait <= 0:
            raise OutOfTime
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors,
                preexec_fn=lambda: os.sched_setaffinity(0, self.processors))
            timer = threading.Timer(wait or 0, process.kill)
            if wait is not None:
                timer.start()
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            timer.cancel()
            if process.returncode == 0:
                return [json.loads(line) for line in output.splitlines()], usage
            if self.end is not None and time.monotonic() >= self.end:
                raise OutOfTime
            errors.seek(0)
            raise Failed(f"exit {process.returncode} of {shlex.join(command)}\n{errors.read().decode(errors='replace')}")


def slots(options):
    """One a job, with as many processors of its own as it has threads while there are enough."""
    processors = sorted(os.sched_getaffinity(0))
    end = time.monotonic() + options.seconds if options.seconds else None
    if len(processors) < options.jobs * options.threads:
        return [Slot(processors, end) for _ in range(options.jobs)]
    return [Slot(processors[i * options.threads:(i + 1) * options.threads], end) for i in range(options.jobs)]


def learned(blocks):
    """In short, of the blocks of a reconstruction: all but those out of a journal."""
    return {"blocks": len(blocks), "improved": sum(block["kept"] == "learned" for block in blocks),
            "loss_ratio": statistics.fmean(block["loss_end"] / block["loss_start"] for block in blocks),
            "tokens_per_second": statistics.median(block["tokens_per_second"] for block in blocks)}


def by_quantize(options, row, output, slot):
    lines, usage = slot.call([options.crumb, "quantize", row.model, "-o", output, "--force", "--json", "-q",
                      "--calib", options.calib, "--calib-windows", str(row.calib_windows), "--check-windows", "0",
                      "-t", str(options.threads), *shlex.split(row.configuration["args"])])
    made = lines[0]
    return {**{key: made[key] for key in ("linear_bpw", "head_bits", "total_bpw", "file_bytes", "seconds", "peak_rss_bytes")},
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            **({"reconstruction": learned(made["reconstruction"])} if made.get("reconstruction") else {})}


def by_study(options, row, output, slot):
    """Embedding and head stay float. Its own evaluation is left aside: one window, for all rows go by one protocol."""
    methods = output + ".json"
    with open(methods, "w") as file:
        json.dump([{**row.configuration["study"], "name": "study", "write": output}], file)
    lines, usage = slot.call([options.study, row.model, methods, options.calib, options.text,
                             f"calib={row.calib_windows}", "eval=1", f"threads={options.threads}"])
    return {"linear_bpw": lines[0]["linear_bpw"], "head_bits": 32, "total_bpw": None, "file_bytes": None,
            "seconds": lines[0]["seconds"], "peak_rss_bytes": usage.ru_maxrss * 1024}


def by_peer(options, row, slot):
    """Its weights as floats, and what is known of the file itself and its making."""
    kind = row.configuration["peer"]
    path = os.path.join(options.peers, f"{stem(row.model)}.{kind}.gguf")
    scored = path.removesuffix(".gguf") + ".F32.gguf"
    if options.peers_bin:
        with options.filling:  # all types of a model share its importance matrix
            slot.call([sys.executable, os.path.join(HERE, "peers.py"), "--bin", options.peers_bin, "--model", row.model,
                       "--calib", options.calib, "-o", options.peers, "--types", kind,
                       "--calib-windows", str(row.calib_windows), "--threads", str(options.threads)])
    if not os.path.exists(scored + ".json"):
        raise Failed(f"peers.py has not made {scored}")
    with open(path + ".json") as file:
        made = json.load(file)
    bits = gguf_bits(path)
    if not bits:
        raise Failed(f"no matrices in {path}")
    return scored, {"linear_bpw": bits["linear_bpw"], "head_bits": bits["head_bits"], "total_bpw": None,
                  "file_bytes": os.path.getsize(path), **made}


def measure(options, row, slot):
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        path = os.path.join(folder, "model.crumb")
        if "peer" in row.configuration:
            path, made = by_peer(options, row, slot)
        elif "study" in row.configuration:
            made = by_study(options, row, path, slot)
        else:
            made = by_quantize(options, row, path, slot)
        kl = slot.call([options.crumb, "eval", "kl", "--base", row.model, "-m", path, "-f", options.text, "--json", "-q",
                        "--limit", str(row.windows), "-t", str(options.threads),
                        *(["--all-positions"] if options.all_positions else [])])[0][0]
    return {**made, **{key: kl[key] for key in ("mean_kld", "stderr_kld", "kld_p99", "top1", "ppl", "ppl_base",
                                                "ppl_ratio", "tokens")}}


def circumstances(options):
    """What a number depends on beside model and arguments."""
    done = subprocess.run([options.crumb, "version", "--json"], stdout=subprocess.PIPE, check=True)
    return {
        "crumb": json.loads(done.stdout),
        "text": os.path.basename(options.text), "text_sha256": sha256(options.text),
        "calibration": os.path.basename(options.calib), "calibration_sha256": sha256(options.calib),
        "all_positions": options.all_positions,
    }


def comparable(around):
    """Without the machine: results may be gathered on several."""
    crumb = {k: v for k, v in around["crumb"].items() if k not in ("cpu_features", "environment")}
    return {**around, "crumb": crumb}


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


def read_configurations(paths):
    """With "args" of every one, by which a result is known again."""
    configurations = []
    for path in paths:
        with open(path) as file:
            configurations += json.load(file)["configurations"]
    for configuration in configurations:
        if "study" in configuration:
            configuration["args"] = "crumb_study " + json.dumps(configuration["study"])
        if "peer" in configuration:
            configuration["args"] = PEER_ARGS.format(configuration["peer"])
    return configurations


class Row(typing.NamedTuple):
    """A model in one configuration, yet to be measured."""
    model: str
    windows: int
    calib_windows: int
    configuration: dict
    circumstances: dict
    seconds: float  # about; 0 if not known


def all_rows(options, around):
    """Model by model, in the order of the configurations."""
    able = {"study": options.study, "peer": options.peers}
    for i, model in enumerate(options.model):
        windows, calib_windows = (counts[min(i, len(counts) - 1)] for counts in (options.windows, options.calib_windows))
        here = {**around, "calibration_windows": calib_windows, "model": os.path.basename(model),
                "model_sha256": sha256(model), "windows": windows}
        for configuration in read_configurations(options.configurations):
            if not fnmatch.fnmatch(configuration["name"], options.only):
                continue
            if all(kind not in configuration or tool for kind, tool in able.items()):
                yield Row(model, windows, calib_windows, configuration, here, 0)


def queued(rows, path):
    """Those that the lines of a queue name, in its order, each once."""
    rows = list(rows)
    with open(path) as file:
        lines = [line.split() for line in file if line.strip() and not line.startswith("#")]
    for words in lines:
        if len(words) not in (2, 3):
            sys.exit(f"run.py: {path}: expected MODEL NAME [SECONDS], found {' '.join(words)}")
        seconds = float(words[2]) if len(words) == 3 else 0
        for row in list(rows):
            if fnmatch.fnmatch(stem(row.model), words[0]) and fnmatch.fnmatch(row.configuration["name"], words[1]):
                rows.remove(row)
                yield row._replace(seconds=seconds)


def pending(options, results, around):
    """What is still to be run."""
    def known(row):
        return any(r["name"] == row.configuration["name"] and r["args"] == row.configuration["args"]
                   and comparable(r["circumstances"]) == comparable(row.circumstances) for r in results["runs"])

    rows = all_rows(options, around)
    return [row for row in (queued(rows, options.queue) if options.queue else rows) if not known(row)]


def run_all(options):
    """The results, and whether all went well."""
    around = circumstances(options)
    if around["text_sha256"] == around["calibration_sha256"]:
        sys.exit("run.py: calibration and evaluation text are the same file")
    results = load(options.output)
    todo = pending(options, results, around)
    free = queue.Queue()
    for slot in slots(options):
        free.put(slot)
    lock = threading.Lock()
    bad = []

    def work(row):
        slot = free.get()
        title = f"{stem(row.model)} {row.configuration['name']}"
        try:
            if not slot.has(row.seconds):
                raise OutOfTime
            measured = measure(options, row, slot)
        except OutOfTime:
            bad.append(title)
            return
        except Exception as failure:  # whatever it is, the other rows go on
            bad.append(title)
            print(f"{title}: {failure or type(failure).__name__}", file=sys.stderr, flush=True)
            return
        finally:
            free.put(slot)
        with lock:
            results["runs"].append({
                **{key: row.configuration.get(key, "") for key in ("name", "args", "control")},
                "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                "cpu": processor(), "threads": options.threads, **measured, "circumstances": row.circumstances})
            save(options.output, results)
            print(f"{title}: KLD {measured['mean_kld']:.4f}, {measured['seconds']:.0f} s", file=sys.stderr, flush=True)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for future in [pool.submit(work, row) for row in todo]:
            future.result()
    if bad:
        print(f"run.py: {len(bad)} of {len(todo)} runs failed or found no time: {', '.join(bad)}", file=sys.stderr)
    return results, not bad


def rows(runs, order):
    """Of several runs of a configuration the last one, in the order of the configurations."""
    last = {run["name"]: run for run in runs}
    for run in sorted(last.values(), key=lambda r: order.get(r["name"], len(order))):
        control = last.get(run["control"])
        ratio = f"{run['mean_kld'] / control['mean_kld']:.2f} x {run['control']}" if control else ""
        yield [run["name"], f"{run['linear_bpw']:.3f}", f"{run['head_bits']:.2f}", f"{run['mean_kld']:.4f}",
               f"{run['stderr_kld']:.4f}", ratio, f"{100 * run['top1']:.1f}", f"{run['ppl_ratio']:.3f}",
               f"{run['seconds']:.0f}", f"{run['peak_rss_bytes'] / 1e6:.0f}"]


def table(results, configurations):
    """Markdown, one table a model."""
    order = {c["name"]: i for i, c in enumerate(read_configurations(configurations))}
    models = {}
    for run in results["runs"]:
        models.setdefault(run["circumstances"]["model"], []).append(run)
    lines = []
    for model, runs in models.items():
        windows = sorted({run["circumstances"]["windows"] for run in runs})
        lines += ["", f"{model}, {' or '.join(map(str, windows))} windows", ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
        lines += ["| " + " | ".join(row) + " |" for row in rows(runs, order)]
    return "\n".join(lines[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", metavar="RESULTS", nargs="+", help="print the table of files of results and stop")
    parser.add_argument("--crumb", default="build/release/crumb")
    parser.add_argument("--study", help="crumb_study; without it its methods are left out")
    parser.add_argument("--peers", help="folder of peers.py; without it llama.cpp's types are left out")
    parser.add_argument("--peers-bin", help="folder of llama-quantize and llama-imatrix: peers are made when their turn comes")
    parser.add_argument("--model", action="append", help="source; may be given several times")
    parser.add_argument("--text", help="evaluation text")
    parser.add_argument("--calib", help="calibration text")
    parser.add_argument("-o", "--output", help="file of results")
    parser.add_argument("--configurations", metavar="FILE", nargs="+", default=[os.path.join(HERE, "configurations.json")])
    parser.add_argument("--only", default="*")
    parser.add_argument("--queue", help="file of what to run, in order")
    parser.add_argument("--calib-windows", type=int, action="append",
                        help="calibration windows of 512 tokens, of the models in turn (default 32)")
    parser.add_argument("--windows", type=int, action="append",
                        help="evaluation windows of 512 tokens, of the models in turn (default 16)")
    parser.add_argument("--all-positions", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--scratch", help="folder for the models while they are measured")
    options = parser.parse_args()
    if options.table:
        runs = [run for path in options.table for run in load(path)["runs"]]
        print(table({"runs": runs}, options.configurations))
        return
    for name in ("model", "text", "calib", "output"):
        if getattr(options, name) is None:
            parser.error(f"--{name} is required")
    options.windows = options.windows or [16]
    options.calib_windows = options.calib_windows or [32]
    options.filling = threading.Lock()
    results, well = run_all(options)
    print(table(results, options.configurations))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
