#include "quant/train/train_text.h"

#include <span>

#include "models/errors.h"
#include "models/text.h"
#include "quant/bytes.h"
#include "quant/corpus.h"

namespace crumb::quant::train {
namespace {

constexpr int64_t kAllWindows = int64_t{1} << 40;

std::vector<int32_t> kept_back_ids(const TrainRecipe& r) {
  TokenData data(r.window);
  data.add_file(r.kept_back);
  if (data.windows() < r.kept_windows)
    throw FormatError("kept-back tokens (" + r.kept_back + ": expected " +
                      std::to_string(r.kept_windows) + " windows, found " +
                      std::to_string(data.windows()) + ")");
  std::vector<int32_t> ids(static_cast<std::size_t>(r.kept_windows * r.window));
  for (int64_t w = 0; w < r.kept_windows; ++w)
    data.read(w, std::span(ids).subspan(static_cast<std::size_t>(w * r.window),
                                        static_cast<std::size_t>(r.window)));
  return ids;
}

}  // namespace

TrainText read_train_text(const TrainRecipe& r, const models::SourceModel& teacher) {
  TrainText text{TokenData(r.window), {}, {}, {}};
  for (const std::string& path : r.data) text.data.add_file(path);
  if (!r.kept_back.empty()) text.kept_back = kept_back_ids(r);
  for (const std::string& path : r.text) {
    const int64_t kept = std::ssize(text.kept_back) / r.window;
    CorpusOptions options{path, kAllWindows, r.window, r.seed, r.kept_windows - kept};
    if (!r.kept_back.empty()) options.held_out = 0;
    Corpus corpus = make_corpus(teacher, options);
    text.data.add(std::move(corpus.windows.ids));
    text.kept_back.insert(text.kept_back.end(), corpus.held_out.ids.begin(),
                          corpus.held_out.ids.end());
  }
  const int64_t kept = std::ssize(text.kept_back) / r.window;
  if (kept > r.batch)
    text.kept_back.resize(static_cast<std::size_t>((kept - kept % r.batch) * r.window));
  std::string data = text.data.hash();
  if (r.generate) {
    const std::string script = models::read_text(r.generate->script);
    text.script = script_from_json(script, teacher.config.vocab);
    require_prefixes_fit(*text.script, r.window);
    data += script;
  }
  text.hash = hex(hash_of(text.kept_back.data(), text.kept_back.size() * sizeof(int32_t),
                          hash_of(data.data(), data.size(), 0)));
  return text;
}

std::string inputs_hash(const models::SourceModel& teacher, const models::SourceModel& start,
                        const std::string& masters, const TrainText& text) {
  std::string all = teacher.hash + " " + start.hash + " " + text.hash;
  if (!masters.empty()) all += " " + masters;
  return hex(hash_of(all.data(), all.size(), 0));
}

}  // namespace crumb::quant::train
