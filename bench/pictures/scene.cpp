#include "bench/pictures/scene.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "bench/pictures/chance.h"

namespace crumb::pictures {
namespace {

constexpr double kFullTurn = 6.283185307179586;

Thing draw_shape(Chance& chance, std::size_t place) {
  Thing thing;
  thing.shape = static_cast<Shape>(chance.below(kShapes.size()));
  thing.colour = chance.below(kColours.size());
  thing.place = place;
  thing.size = 0.55 + 0.4 * chance.share();
  // A square turned by an eighth is a diamond, a cross an x: they lean a little only.
  thing.turn = (chance.share() - 0.5) * kFullTurn / 18;
  return thing;
}

Thing draw_text(Chance& chance) {
  Thing thing;
  const bool digit = chance.share() < 0.5;
  thing.text = digit ? std::string(1, static_cast<char>('0' + chance.below(10)))
                     : std::string(kWords[chance.below(kWords.size())]);
  thing.colour = chance.below(kColours.size());
  thing.place = digit ? chance.below(kPlaces.size()) : 1 + 3 * chance.below(3);
  thing.size = 0.7 + 0.25 * chance.share();
  return thing;
}

}  // namespace

Scene draw_scene(uint64_t seed, uint64_t number) {
  Chance chance(seed, number);
  Scene scene;
  scene.ground = chance.below(kGrounds.size());
  std::vector<std::size_t> places(kPlaces.size());
  std::iota(places.begin(), places.end(), std::size_t{0});
  std::size_t shapes = 1 + chance.below(4);
  if (chance.share() < 0.3) {
    scene.things.push_back(draw_text(chance));
    const Thing& text = scene.things.front();
    // A word takes its whole row.
    std::erase_if(places, [&](std::size_t place) {
      return text.text.size() > 1 ? place / 3 == text.place / 3 : place == text.place;
    });
    shapes = chance.below(2);
  }
  for (std::size_t i = 0; i < shapes; ++i) {
    std::swap(places[i], places[i + chance.below(places.size() - i)]);
    scene.things.push_back(draw_shape(chance, places[i]));
  }
  return scene;
}

}  // namespace crumb::pictures
