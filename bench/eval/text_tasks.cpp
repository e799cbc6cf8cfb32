// Perplexity of a text as a task: an item is a window.
#include <cmath>

#include "bench/eval/task.h"

namespace crumb::eval {
namespace {

void add_perplexity(Metrics& metrics) {
  if (const Metric* nll = find(metrics, "nll"))
    metrics.push_back(
        {"ppl", std::exp(nll->value), std::exp(nll->value) * nll->error, nll->weight, true});
}

const Task kTextTasks[] = {
    {.name = "wikitext2",
     .dimension = "language",
     .kind = TaskKind::kText,
     .data = "wikitext2/test_half_a.raw",
     .metric = "ppl",
     .protocol = "perplexity, windows without overlap, second half of each scored",
     .derive = add_perplexity},
    {.name = "c4",
     .dimension = "language",
     .kind = TaskKind::kText,
     .data = "c4/dev.jsonl",
     .metric = "ppl",
     .protocol = "as wikitext2, over the records' texts joined by blank lines",
     .derive = add_perplexity},
};

}  // namespace

std::span<const Task> text_tasks() { return kTextTasks; }

}  // namespace crumb::eval
