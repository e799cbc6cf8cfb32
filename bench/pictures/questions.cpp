#include "bench/pictures/questions.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <functional>
#include <optional>
#include <sstream>

#include "bench/pictures/chance.h"

namespace crumb::pictures {
namespace {

constexpr std::array<std::string_view, 5> kNumbers = {"zero", "one", "two", "three", "four"};

std::string text_of(std::string_view view) { return std::string(view); }
std::string shape_name(const Thing& thing) {
  return text_of(kShapes[static_cast<std::size_t>(thing.shape)]);
}
std::string colour_name(const Thing& thing) { return text_of(kColours[thing.colour].name); }
bool is_shape(const Thing& thing) { return thing.text.empty(); }

std::string with_article(const std::string& noun) {
  return (std::string("aeiou").find(noun.front()) != std::string::npos ? "an " : "a ") + noun;
}

// "a red circle", "the digit 7", "the word cat".
std::string phrase(const Thing& thing) {
  if (!is_shape(thing)) return (thing.text.size() == 1 ? "the digit " : "the word ") + thing.text;
  return with_article(colour_name(thing) + " " + shape_name(thing));
}

struct Asker {
  const Scene& scene;
  Chance& chance;
  std::vector<Question>& out;

  std::string one_of(std::initializer_list<std::string> wordings) const {
    return *(wordings.begin() + static_cast<std::ptrdiff_t>(chance.below(wordings.size())));
  }
  int64_t count(const std::function<bool(const Thing&)>& is) const {
    return std::ranges::count_if(scene.things, is);
  }
  // What names the thing alone: its shape, else colour and shape; nothing if neither does.
  std::optional<std::string> name(const Thing& thing) const {
    if (!is_shape(thing)) return thing.text.size() == 1 ? "digit" : "word";
    const auto alike = [&](const Thing& other) {
      return is_shape(other) && other.shape == thing.shape;
    };
    if (count(alike) == 1) return shape_name(thing);
    const auto same = [&](const Thing& other) {
      return alike(other) && other.colour == thing.colour;
    };
    if (count(same) == 1) return colour_name(thing) + " " + shape_name(thing);
    return std::nullopt;
  }

  void of_thing(const Thing& thing) const {
    const auto named = name(thing);
    if (!named) return;
    if (named->find(' ') == std::string::npos)
      out.push_back({"colour",
                     one_of({"What colour is the " + *named + "?",
                             "Which colour does the " + *named + " have?"}),
                     colour_name(thing)});
    if (is_shape(thing) || thing.text.size() == 1)
      out.push_back({"place",
                     one_of({"Where is the " + *named + "?",
                             "In which part of the picture is the " + *named + "?"}),
                     text_of(kPlaces[thing.place])});
    if (!is_shape(thing)) {
      const bool digit = thing.text.size() == 1;
      out.push_back({"text",
                     digit ? one_of({"Which digit is shown?", "What number is it?"})
                           : one_of({"Which word is written?", "What does it say?"}),
                     thing.text});
      return;
    }
    const auto coloured = [&](const Thing& other) { return other.colour == thing.colour; };
    if (count(coloured) == 1)
      out.push_back({"shape",
                     one_of({"What shape is " + colour_name(thing) + "?",
                             "Which shape is the " + colour_name(thing) + " one?"}),
                     shape_name(thing)});
  }

  void counts() const {
    const int64_t shapes = count(is_shape);
    out.push_back({"count", one_of({"How many shapes are there?", "How many shapes do you see?"}),
                   text_of(kNumbers[static_cast<std::size_t>(shapes)])});
    // Mostly a colour that is there.
    const std::size_t colour =
        shapes > 0 && chance.share() < 0.7 ? any_shape().colour : chance.below(kColours.size());
    const auto coloured = [&](const Thing& t) { return is_shape(t) && t.colour == colour; };
    out.push_back({"count", "How many shapes are " + text_of(kColours[colour].name) + "?",
                   text_of(kNumbers[static_cast<std::size_t>(count(coloured))])});
  }

  const Thing& any_shape() const {
    for (;;) {
      const Thing& thing = scene.things[chance.below(scene.things.size())];
      if (is_shape(thing)) return thing;
    }
  }

  void exists() const {
    Thing asked;
    if (count(is_shape) > 0 && chance.share() < 0.5) {
      asked = any_shape();
    } else {
      asked.shape = static_cast<Shape>(chance.below(kShapes.size()));
      asked.colour = chance.below(kColours.size());
    }
    const auto is = [&](const Thing& t) {
      return is_shape(t) && t.shape == asked.shape && t.colour == asked.colour;
    };
    out.push_back({"exists", "Is there " + phrase(asked) + "?", count(is) > 0 ? "yes" : "no"});
  }

  void sides() const {
    if (scene.things.size() < 2) return;
    const Thing& a = scene.things[0];
    const Thing& b = scene.things[1];
    const auto first = name(a), second = name(b);
    const std::size_t x = a.place % 3, y = b.place % 3;
    const bool word = a.text.size() > 1 || b.text.size() > 1;  // it takes a whole row
    if (!first || !second || x == y || word) return;
    out.push_back({"side", "Is the " + *first + " left or right of the " + *second + "?",
                   x < y ? "left" : "right"});
  }

  void caption() const {
    std::string text;
    for (std::size_t i = 0; i < scene.things.size(); ++i) {
      if (i > 0) text += i + 1 == scene.things.size() ? " and " : ", ";
      text += phrase(scene.things[i]);
    }
    if (text.empty()) text = "nothing";
    text.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(text.front())));
    out.push_back(
        {"caption", one_of({"Describe the picture.", "What is in the picture?"}), text + "."});
  }
};

}  // namespace

std::vector<Question> questions_of(const Scene& scene, uint64_t seed, uint64_t number) {
  Chance chance(~seed, number);
  std::vector<Question> questions;
  const Asker ask{scene, chance, questions};
  for (const Thing& thing : scene.things) ask.of_thing(thing);
  ask.counts();
  ask.exists();
  ask.sides();
  ask.caption();
  return questions;
}

std::string normal_answer(std::string_view text) {
  std::string plain;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    plain += std::isalnum(byte) || byte >= 0x80 ? static_cast<char>(std::tolower(byte)) : ' ';
  }
  std::istringstream words(plain);
  std::string out;
  for (std::string word; words >> word;) {
    if (word == "a" || word == "an" || word == "the") continue;
    for (std::size_t n = 0; n < kNumbers.size(); ++n)
      if (word == kNumbers[n]) word = std::to_string(n);
    out += (out.empty() ? "" : " ") + word;
  }
  return out;
}

}  // namespace crumb::pictures
