// Nothing is allocated between two tokens: every operator new of the program is counted.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "engine/generate.h"
#include "tests/engine/tiny.h"

namespace {
std::atomic<int64_t> allocations{0};

void* counted(std::size_t n) {
  ++allocations;
  if (void* p = std::malloc(n != 0 ? n : 1)) return p;
  throw std::bad_alloc();
}
}  // namespace

void* operator new(std::size_t n) { return counted(n); }
void* operator new[](std::size_t n) { return counted(n); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

namespace crumb {
namespace {

TEST(Allocation, NoneBetweenTwoTokens) {
  LoadOptions load;
  load.threads = 2;
  const auto engine = test::tiny_engine({"int4", 4, 32}, load);
  const auto session = engine->make_session();
  GenerateOptions options;
  options.max_tokens = 100;
  options.ignore_eos = true;
  options.sampling.repeat_penalty = 1.1f;
  options.stop = {"a stop text that does not come"};
  int64_t at_first = -1, at_last = -1;
  const auto before = allocations.load();
  generate(*session, *engine, test::some_ids(20, 300), options, [&](std::string_view) {
    if (at_first < 0) at_first = allocations.load();
    at_last = allocations.load();
    return true;
  });
  EXPECT_GT(at_first, before) << "the counter does not count";
  EXPECT_EQ(at_last, at_first);
}

}  // namespace
}  // namespace crumb
