#include "bench/eval/fingerprint.h"
#include "models/content_hash.h"

#include <algorithm>
#include <string_view>
#include <vector>

namespace crumb::eval {
namespace {

constexpr std::string_view kText =
    "The quick brown fox, 1234567890 times: it's there!\n\tfor (int i = 0; i < n; ++i) x[i] += "
    "0.5;\n\xc3\x89tude \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e \xf0\x9f\x8d\x9e A. B. C. D.  two "
    "spaces   three\r\nQuestion: What is the capital of France?\nAnswer:";
constexpr std::size_t kMostTokens = 128, kOneByOne = 4;

void add(std::vector<uint8_t>& bytes, const void* data, std::size_t size) {
  const auto* from = static_cast<const uint8_t*>(data);
  bytes.insert(bytes.end(), from, from + size);
}

}  // namespace

std::string fingerprint(const Engine& engine, kernels::KvType kv) {
  std::vector<int32_t> ids = engine.tokenizer().encode(kText, false);
  std::vector<uint8_t> bytes;
  add(bytes, ids.data(), ids.size() * sizeof(int32_t));
  if (ids.empty()) ids.push_back(0);
  ids.resize(
      std::min({ids.size(), kMostTokens, static_cast<std::size_t>(engine.config().context)}));
  SessionOptions options;
  options.kv = kv;
  options.context = std::ssize(ids);
  const auto session = engine.make_session(options);
  const std::size_t single = std::min(kOneByOne, ids.size() - 1);
  const auto all = std::span(ids);
  std::string chain;
  const auto take = [&](std::span<const float> logits) {
    add(bytes, logits.data(), logits.size_bytes());
    chain += models::content_hash(bytes);
    bytes.clear();
  };
  session->forward_all(all.first(ids.size() - single),
                       [&](int64_t, std::span<const float> logits) { take(logits); });
  for (const int32_t id : all.last(single)) take(session->forward(std::span(&id, 1)));
  return models::content_hash({reinterpret_cast<const uint8_t*>(chain.data()), chain.size()});
}

}  // namespace crumb::eval
