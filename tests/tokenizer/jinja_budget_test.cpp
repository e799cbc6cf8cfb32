// Hostile templates end in one clear error, soon: bounded depth, steps, bytes and items.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "tokenizer/chat_template.h"

namespace crumb::tokenizer {
namespace {

using Json = nlohmann::ordered_json;

std::string repeated(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

// The error's text; empty if there is none.
std::string error_of(const std::string& source, const TemplateBudget& budget = {}) {
  try {
    ChatTemplate::parse(source, budget).render(Json{{"s", "abc"}});
    return "";
  } catch (const TemplateError& error) {
    EXPECT_GE(error.line(), 1);
    EXPECT_GE(error.column(), 1);
    return error.what();
  }
}

struct Bomb {
  std::string source;
  const char* message;
};

void PrintTo(const Bomb& value, std::ostream* out) { *out << value.source.substr(0, 40); }

class BombTest : public testing::TestWithParam<Bomb> {};

TEST_P(BombTest, IsDefused) {
  EXPECT_THAT(error_of(GetParam().source), testing::HasSubstr(GetParam().message));
}

constexpr int kMany = 60'000;

INSTANTIATE_TEST_SUITE_P(
    Depth, BombTest,
    testing::Values(
        Bomb{"{{ " + repeated("(", kMany) + "1" + repeated(")", kMany) + " }}", "nested"},
        Bomb{"{{ " + repeated("[", kMany) + repeated("]", kMany) + " }}", "nested"},
        Bomb{"{{ " + repeated("{1:", kMany) + "1" + repeated("}", kMany) + " }}", "nested"},
        Bomb{"{{ " + repeated("-", kMany) + "1 }}", "nested"},
        Bomb{"{{ " + repeated("not ", kMany) + "1 }}", "nested"},
        Bomb{"{{ s" + repeated(".a", kMany) + " }}", "nested"},
        Bomb{"{{ s" + repeated("[0]", kMany) + " }}", "nested"},
        Bomb{"{{ s" + repeated("()", kMany) + " }}", "nested"},
        Bomb{"{{ s" + repeated("|trim", kMany) + " }}", "nested"},
        Bomb{"{{ " + repeated("1 if 1 else ", kMany) + "1 }}", "nested"},
        Bomb{"{{ 1" + repeated(" if 1", kMany) + " }}", "nested"},
        Bomb{"{{ 1" + repeated(" is number is not none", kMany) + " }}", "chained"},
        Bomb{repeated("{% if 1 %}", kMany), "nested"},
        Bomb{repeated("{% for x in [1] %}", kMany), "nested"},
        Bomb{"{% for " + repeated("(", kMany) + "x" + repeated(")", kMany) + " in s %}", "nested"},
        Bomb{"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "too deeply"},
        Bomb{"{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}"
             "{{ a() }}",
             "too deeply"},
        Bomb{"{% macro m(x=m()) %}{% endmacro %}{{ m() }}", "too deeply"},
        Bomb{"{% macro m() %}{{ caller() }}{% endmacro %}{% set ns = namespace() %}"
             "{% macro r() %}{% call m() %}{{ r() }}{% endcall %}{% endmacro %}{{ r() }}",
             "too deeply"},
        Bomb{"{% set n = namespace(x=[]) %}{% for i in range(1000) %}{% set n.x = [n.x] %}"
             "{% endfor %}",
             "containers nest"},
        Bomb{"{% set n = namespace(x=1) %}{% for i in range(1000) %}{% set n.x = {'a': n.x} %}"
             "{% endfor %}",
             "containers nest"}));

INSTANTIATE_TEST_SUITE_P(
    Size, BombTest,
    testing::Values(
        Bomb{"{{ 'a' * 10**9 }}", "bytes"}, Bomb{"{{ 'a' * 10**18 * 1 }}", "bytes"},
        Bomb{"{{ [1] * 10**18 }}", "steps"}, Bomb{"{{ range(10**9) | length }}", "items"},
        Bomb{"{{ range(-9223372036854775807, 9223372036854775807) | length }}", "items"},
        Bomb{"{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}"
             "{% endfor %}",
             "bytes"},
        Bomb{"{% set n = namespace(x='a') %}{% for i in range(99) %}"
             "{% set n.x = n.x | replace('a', 'aaaa') %}{% endfor %}",
             "bytes"},
        Bomb{"{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}"
             "{% endfor %}",
             "steps"},
        Bomb{"{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}"
             "{% endfor %}{{ n.x == n.x }}",
             "holds too much"},
        Bomb{"{{ ('x' * 2000000).replace('', 'yyyy') }}", "bytes"},
        Bomb{"{{ ['a' * 3000000, 'b' * 3000000] | join }}", "bytes"},
        Bomb{"{% for i in range(9000) %}{{ 'abcdefgh' * 100 }}{% endfor %}", "prints more than"},
        Bomb{"{{ ('a\n' * 1000) | indent(1000000) }}", "bytes"},
        Bomb{"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
             "steps"},
        Bomb{"{% set x = 'a' * 4000000 %}{% for i in range(99999) %}{% set y = x ~ '' %}"
             "{% endfor %}",
             "steps"},
        Bomb{"{% set x = 'a' * 4000000 %}{% for i in range(99999) %}{% if x == x ~ '' %}{% endif %}"
             "{% endfor %}",
             "steps"}));

TEST(JinjaBudget, SmallerBudgetsHold) {
  EXPECT_EQ("", error_of("{{ ((1)) }}", {.depth = 16}));
  EXPECT_THAT(error_of("{{ " + repeated("(", 20) + "1" + repeated(")", 20) + "}}", {.depth = 16}),
              testing::HasSubstr("nested"));
  EXPECT_THAT(error_of("{{ 1 }}{{ 2 }}{{ 3 }}", {.steps = 3}), testing::HasSubstr("3 steps"));
  EXPECT_EQ("", error_of("abc", {.output = 3}));
  EXPECT_THAT(error_of("abcd", {.output = 3}), testing::HasSubstr("3 bytes"));
  EXPECT_THAT(error_of("{{ range(4) | list }}", {.range = 3}), testing::HasSubstr("3 items"));
}

TEST(JinjaBudget, LongFlatTemplatesAreFine) {
  EXPECT_EQ("", error_of("{{ 1" + repeated(" + 1", 50'000) + " }}"));
  EXPECT_EQ("", error_of("{{ 1" + repeated(" and 1", 50'000) + " }}"));
  EXPECT_EQ("", error_of("{% if 0 %}" + repeated("{% elif 0 %}", 20'000) + "{% endif %}"));
}

// A namespace can hold itself, a macro and its own scope: all of it is freed (the leak check of the
// asan build sees to that).
TEST(JinjaBudget, RingsOfNamespacesAreFreed) {
  EXPECT_EQ("", error_of("{% set n = namespace() %}{% set n.me = n %}{% set n.l = [n, {'k': n}] %}"
                         "{% macro m() %}{% endmacro %}{% set n.m = m %}{% set n.f = 'x'.upper %}"
                         "{{ n.me.me.l[1].k.f() }}"));
  EXPECT_EQ("", error_of("{% set n = namespace(x=1) %}{% for i in range(50000) %}"
                         "{% set n.x = namespace(y=n.x) %}{% endfor %}"));
}

// Whatever the bytes, parsing and rendering end with a text or a TemplateError.
TEST(JinjaHostile, RandomBytesAndPieces) {
  const std::string pieces[] = {"{{",    "}}",  "{%",    "%}", "{#",     "#}",  "-",    "+",
                                "if ",   "for", " in ",  "x",  "endfor", "set", "=",    "'",
                                "\"",    "\\",  "(",     ")",  "[",      "]",   "{",    "}",
                                "|trim", ".",   "raw",   "1",  "0x",     "1e",  "\xff", "\xe4\xb8",
                                "macro", "is",  " not ", ",",  ":",      "\n",  " ",    "endraw",
                                "call",  "*",   "**",    "~",  "loop",   "\0"};
  std::mt19937_64 random(7);
  int fine = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string source;
    const auto length = random() % 24;
    for (uint64_t i = 0; i < length; ++i) {
      if (random() % 8 == 0) {
        source += static_cast<char>(random() & 0xFF);
      } else {
        source += pieces[random() % std::size(pieces)];
      }
    }
    if (error_of(source).empty()) ++fine;
  }
  EXPECT_GT(fine, 100);  // some are text only
}

// Every cut of a template that uses everything.
TEST(JinjaHostile, TruncationAnywhere) {
  const std::string source =
      "{#- c -#}{% raw %}{{{% endraw %}{% macro m(a, b='x') %}{{ a ~ b | upper }}{% endmacro %}"
      "{% for k, v in {'a': [1, 2.5]}.items() if v is not none -%}{{ m(k, b=v[0:1:1]) }}"
      "{%- else %}n{% endfor %}{% set n = namespace(x=1) %}{% set n.x = \"\\u00e9\" %}"
      "{% call m(1) %}{% endcall %}";
  int fine = 0;
  for (std::size_t cut = 0; cut <= source.size(); ++cut) {
    if (error_of(source.substr(0, cut)).empty()) ++fine;
  }
  EXPECT_GT(fine, 0);
  EXPECT_LT(fine, static_cast<int>(source.size()) / 2);
}

TEST(JinjaHostile, InvalidUtf8InVariablesPassesThrough) {
  const Json variables{{"s", "a\xff\xe4\xb8z"}};
  EXPECT_EQ("a\xff\xe4\xb8z|A\xff\xe4\xb8Z|5",
            joined(ChatTemplate::parse("{{ s | trim }}|{{ s | upper }}|{{ s | length }}")
                       .render(variables)));
}

}  // namespace
}  // namespace crumb::tokenizer
