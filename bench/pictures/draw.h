// A scene as pixels.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "bench/pictures/scene.h"

namespace crumb::pictures {

struct Pixels {
  int64_t side = 0;
  std::vector<uint8_t> rgb;  // [side, side, 3]
};

// Every pixel is the mean of four by four points. The same scene gives the same bytes everywhere.
Pixels draw(const Scene& scene, int64_t side);

// Atomically, by libpng. Throws IoError.
void write_png(const std::string& path, const Pixels& pixels);

}  // namespace crumb::pictures
