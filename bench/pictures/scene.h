// What a drawn picture shows: a few things on a grid of three by three places, all drawn by a seed.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace crumb::pictures {

struct Rgb {
  uint8_t r, g, b;
};
struct Colour {
  std::string_view name;
  Rgb value;
};
inline constexpr std::array<Colour, 8> kColours = {{{"red", {214, 39, 40}},
                                                    {"green", {44, 150, 50}},
                                                    {"blue", {40, 90, 220}},
                                                    {"yellow", {245, 215, 40}},
                                                    {"orange", {250, 135, 20}},
                                                    {"purple", {140, 60, 170}},
                                                    {"black", {25, 25, 25}},
                                                    {"white", {250, 250, 250}}}};
// Grey ground, so that every colour of a thing can be seen.
inline constexpr std::array<Rgb, 3> kGrounds = {
    {{165, 165, 165}, {130, 135, 140}, {185, 180, 170}}};

enum class Shape : uint8_t { kCircle, kSquare, kTriangle, kStar, kCross, kRing };
inline constexpr std::array<std::string_view, 6> kShapes = {"circle", "square", "triangle",
                                                            "star",   "cross",  "ring"};
// Row by row from the top left.
inline constexpr std::array<std::string_view, 9> kPlaces = {
    "top left", "top",         "top right", "left",        "centre",
    "right",    "bottom left", "bottom",    "bottom right"};
inline constexpr std::array<std::string_view, 24> kWords = {
    "cat",  "dog",  "sun",  "tea",  "box",  "car",  "hat",  "key",  "map",  "pen",  "cup",  "bus",
    "fish", "bird", "tree", "book", "door", "moon", "star", "ship", "road", "milk", "rain", "lamp"};

// A shape, or a text (one digit or a word) in place of it.
struct Thing {
  Shape shape = Shape::kCircle;
  std::string text;
  std::size_t colour = 0;  // of kColours
  std::size_t place = 0;   // of kPlaces; a word stands in the middle of its row
  double size = 0.8;       // of the place, 0..1
  double turn = 0;         // radians; texts and circles are not turned
};
struct Scene {
  std::size_t ground = 0;  // of kGrounds
  std::vector<Thing> things;
};

// Scene `number` of a seed: in seven of ten one to four shapes in different places, else a digit,
// or a word, alone or with one shape. Another number, another scene, whatever was drawn before.
Scene draw_scene(uint64_t seed, uint64_t number);

}  // namespace crumb::pictures
