// Drawn pictures: scenes, what can be asked of them, pixels.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "bench/pictures/draw.h"
#include "bench/pictures/font.h"
#include "bench/pictures/questions.h"
#include "models/errors.h"
#include "models/mapped_file.h"
#include "tests/support/temp_dir.h"

namespace crumb::pictures {
namespace {

constexpr uint64_t kSeed = 7;

Rgb at(const Pixels& pixels, double u, double v) {
  const auto side = static_cast<double>(pixels.side);
  const auto i = 3 * (static_cast<std::size_t>(v * side) * static_cast<std::size_t>(pixels.side) +
                      static_cast<std::size_t>(u * side));
  return {pixels.rgb[i], pixels.rgb[i + 1], pixels.rgb[i + 2]};
}
bool same(const Rgb& a, const Rgb& b) { return a.r == b.r && a.g == b.g && a.b == b.b; }

std::map<std::string, std::string> asked(const Scene& scene) {
  std::map<std::string, std::string> answers;
  for (const Question& q : questions_of(scene, kSeed, 0)) answers[q.text] = q.answer;
  return answers;
}
std::string answer_of(const Scene& scene, std::string_view kind) {
  for (const Question& q : questions_of(scene, kSeed, 0))
    if (q.kind == kind) return q.answer;
  return "not asked";
}

TEST(Pictures, ScenesDependOnSeedAndNumberOnly) {
  std::set<std::vector<uint8_t>> different;
  std::map<std::size_t, int> counts;
  int texts = 0;
  for (uint64_t n = 0; n < 500; ++n) {
    const Scene scene = draw_scene(kSeed, n);
    ASSERT_FALSE(scene.things.empty());
    ASSERT_LE(scene.things.size(), 4u);
    std::set<std::size_t> places;
    for (const Thing& thing : scene.things) {
      EXPECT_TRUE(places.insert(thing.place).second) << n;
      texts += thing.text.empty() ? 0 : 1;
    }
    ++counts[scene.things.size()];
    different.insert(draw(scene, 24).rgb);
    EXPECT_EQ(draw(draw_scene(kSeed, n), 24).rgb, draw(scene, 24).rgb);
  }
  EXPECT_GT(different.size(), 490u);
  EXPECT_GT(texts, 100);
  for (std::size_t n = 1; n <= 4; ++n) EXPECT_GT(counts[n], 50) << n;
}

TEST(Pictures, QuestionsHaveTheirAnswers) {
  Scene scene;
  scene.things = {{Shape::kCircle, "", 0, 0, 0.8, 0}, {Shape::kSquare, "", 2, 5, 0.8, 0}};
  EXPECT_EQ(answer_of(scene, "colour"), "red");
  EXPECT_EQ(answer_of(scene, "shape"), "circle");
  EXPECT_EQ(answer_of(scene, "place"), "top left");
  EXPECT_EQ(answer_of(scene, "count"), "two");
  EXPECT_EQ(answer_of(scene, "side"), "left");
  EXPECT_EQ(answer_of(scene, "caption"), "A red circle and a blue square.");
  scene.things = {{Shape::kCircle, "cat", 6, 4, 0.8, 0}, {Shape::kRing, "", 4, 8, 0.8, 0}};
  EXPECT_EQ(answer_of(scene, "text"), "cat");
  EXPECT_EQ(answer_of(scene, "side"), "not asked") << "a word is as wide as its row";
  EXPECT_EQ(answer_of(scene, "caption"), "The word cat and an orange ring.");
}

// What two things share names neither of them.
TEST(Pictures, NothingIsAskedThatHasTwoAnswers) {
  Scene scene;
  scene.things = {{Shape::kStar, "", 0, 0, 0.8, 0},
                  {Shape::kStar, "", 3, 2, 0.8, 0},
                  {Shape::kCross, "", 0, 8, 0.8, 0}};
  const auto answers = asked(scene);
  for (const auto& [question, answer] : answers) {
    EXPECT_EQ(question.find("the star"), std::string::npos) << question;
    EXPECT_EQ(question.find("shape is red"), std::string::npos) << question;
  }
  EXPECT_EQ(answers.contains("Is the red star left or right of the yellow star?"), true);
  scene.things[1].colour = 0;  // two red stars
  for (const auto& [question, answer] : asked(scene))
    if (!question.starts_with("Is there") && !question.starts_with("How many")) {
      EXPECT_EQ(question.find("star"), std::string::npos) << question;
    }
}

TEST(Pictures, ExistenceIsTrueHalfTheTime) {
  int yes = 0, all = 0;
  for (uint64_t n = 0; n < 400; ++n) {
    const Scene scene = draw_scene(kSeed, n);
    for (const Question& q : questions_of(scene, kSeed, n)) {
      if (q.kind != "exists") continue;
      ++all;
      yes += q.answer == "yes" ? 1 : 0;
      const bool there = std::ranges::any_of(scene.things, [&](const Thing& t) {
        return t.text.empty() &&
               q.text.ends_with(" " + std::string(kColours[t.colour].name) + " " +
                                std::string(kShapes[static_cast<std::size_t>(t.shape)]) + "?");
      });
      EXPECT_EQ(there, q.answer == "yes") << q.text;
    }
  }
  EXPECT_EQ(all, 400);
  EXPECT_GT(yes, 140);
  EXPECT_LT(yes, 260);
}

TEST(Pictures, ThingsStandWhereTheyShould) {
  for (std::size_t shape = 0; shape < kShapes.size(); ++shape)
    for (std::size_t place = 0; place < kPlaces.size(); ++place) {
      Scene scene;
      scene.things = {{static_cast<Shape>(shape), "", 0, place, 0.8, 0}};
      const Pixels pixels = draw(scene, 96);
      const double u = (static_cast<double>(place % 3) + 0.5) / 3,
                   v = (static_cast<double>(place / 3) + 0.5) / 3;
      const bool hollow = static_cast<Shape>(shape) == Shape::kRing;
      EXPECT_EQ(same(at(pixels, u, v), kColours[0].value), !hollow) << shape << ' ' << place;
      const double elsewhere = place == 4 ? 0.17 : 0.5;
      EXPECT_TRUE(same(at(pixels, elsewhere, elsewhere), kGrounds[0])) << shape << ' ' << place;
    }
  // A ring's rim; a star is wider at its points than between them.
  Scene scene;
  scene.things = {{Shape::kRing, "", 0, 4, 1, 0}};
  EXPECT_TRUE(same(at(draw(scene, 96), 0.5 + 0.8 / 6, 0.5), kColours[0].value));
  scene.things[0].shape = Shape::kStar;
  EXPECT_TRUE(same(at(draw(scene, 96), 0.5, 0.5 - 0.8 / 6), kColours[0].value));
  EXPECT_TRUE(same(at(draw(scene, 96), 0.5, 0.5 + 0.6 / 6), kGrounds[0]));
}

TEST(Pictures, TextIsDrawnDotByDot) {
  Scene scene;
  scene.things = {{Shape::kCircle, "7", 0, 4, 0.96, 0}};
  const Pixels pixels = draw(scene, 300);
  const double dot = 0.96 / 3 / 8;
  for (int y = 0; y < kGlyphHeight; ++y)
    for (int x = 0; x < kGlyphWidth; ++x) {
      const Rgb found = at(pixels, 0.5 + (x + 0.5 - 3) * dot, 0.5 + (y + 0.5 - 4) * dot);
      EXPECT_EQ(same(found, kColours[0].value), glyph_dot('7', x, y)) << x << ' ' << y;
    }
  std::set<std::string> glyphs;
  for (const char c : std::string("0123456789abcdefghijklmnopqrstuvwxyz")) {
    std::string dots;
    for (int y = 0; y < kGlyphHeight; ++y)
      for (int x = 0; x < kGlyphWidth; ++x) dots += glyph_dot(c, x, y) ? '#' : '.';
    EXPECT_TRUE(glyphs.insert(dots).second) << c;
    EXPECT_NE(dots.find('#'), std::string::npos) << c;
  }
  EXPECT_FALSE(glyph_dot('!', 2, 2));
  EXPECT_FALSE(glyph_dot('7', 5, 0));
}

TEST(Pictures, ArePngFiles) {
  const test::TempDir folder;
  write_png(folder.file("a.png"), draw(draw_scene(kSeed, 1), 32));
  const models::MappedFile file(folder.file("a.png"));
  const auto bytes = file.bytes();
  ASSERT_GT(bytes.size(), 60u);
  EXPECT_EQ(std::string(bytes.begin() + 1, bytes.begin() + 4), "PNG");
  EXPECT_THROW(write_png(folder.file("no/a.png"), draw(draw_scene(kSeed, 1), 32)), IoError);
}

TEST(Pictures, AnswersAreComparedByWhatTheySay) {
  EXPECT_EQ(normal_answer(" The Red circle. "), "red circle");
  EXPECT_EQ(normal_answer("Two"), normal_answer("2"));
  EXPECT_EQ(normal_answer("top-left"), "top left");
  EXPECT_NE(normal_answer("left"), normal_answer("right"));
  EXPECT_EQ(normal_answer("?!"), "");
}

}  // namespace
}  // namespace crumb::pictures
