#include "quant/train/text_writer.h"

#include <algorithm>

#include "engine/batch.h"
#include "models/errors.h"

namespace crumb::quant::train {
namespace {

// Tokens written so far; throws if it is enough.
struct Meter {
  const ProgressFn& progress;
  int64_t total = 0, done = 0;
  void add(int64_t tokens) {
    done += tokens;
    if (progress && !progress({"generate", "", done, total})) throw Interrupted{};
  }
};

// Rows beside each other, one position at a time.
void write_rows(Batch& batch, const TextScript& script, const Sampling& sampling, int64_t first_row,
                int64_t length, std::span<int32_t> ids, Meter& meter) {
  const auto n = static_cast<std::size_t>(std::ssize(ids) / length);
  const auto T = static_cast<std::size_t>(length);
  std::vector<RowState> states;
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (std::size_t i = 0; i < n; ++i) {
    states.push_back(start_row(script, sampling, first_row + static_cast<int64_t>(i)));
    ids[i * T] = script.prefixes[static_cast<std::size_t>(states[i].prefix)][0];
    sequences.push_back(batch.make_sequence());
  }
  for (std::size_t t = 0; t + 1 < T; ++t) {
    std::vector<BatchPart> parts;
    for (std::size_t i = 0; i < n; ++i)
      parts.push_back({sequences[i].get(), ids.subspan(i * T + t, 1), LogitsOf::kLast});
    batch.step(parts);
    for (std::size_t i = 0; i < n; ++i) {
      const auto row = static_cast<int64_t>(i);
      if (!batch.finite(row))
        throw Error(ExitCode::kNumeric, "text by the teacher (logits that are not finite)");
      ids[i * T + t + 1] = next_token(script, sampling, batch.logits(row), first_row + row,
                                      static_cast<int64_t>(t), &states[i]);
    }
    meter.add(static_cast<int64_t>(n));
  }
  meter.add(static_cast<int64_t>(n));
}

}  // namespace

std::vector<int32_t> write_text(const std::shared_ptr<const Engine>& engine,
                                const TextScript& script, const Sampling& sampling,
                                int64_t first_row, int64_t rows, int64_t length,
                                const ProgressFn& progress) {
  require_prefixes_fit(script, length);
  Batch batch(engine, {.context = length, .kv = kernels::KvType::kF32, .max_rows = kRowsAtOnce});
  std::vector<int32_t> ids(static_cast<std::size_t>(rows * length));
  Meter meter{progress, rows * length};
  for (int64_t done = 0; done < rows; done += kRowsAtOnce) {
    const int64_t n = std::min(kRowsAtOnce, rows - done);
    write_rows(batch, script, sampling, first_row + done, length,
               std::span(ids).subspan(static_cast<std::size_t>(done * length),
                                      static_cast<std::size_t>(n * length)),
               meter);
  }
  return ids;
}

}  // namespace crumb::quant::train
