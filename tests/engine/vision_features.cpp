// What a tower makes of pixels, and how long it takes, for scripts/vision/check_tower.py:
//   vision_features MODEL PIXELS.f32 FEATURES.f32 [RUNS THREADS]
// PIXELS are [3, S, S] floats, FEATURES [patches, D]. Prints processor and wall seconds of an
// image.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <fstream>
#include <vector>

#include "engine/vision/encoder.h"

int main(int argc, char** argv) {
  if (argc != 4 && argc != 6) {
    std::fprintf(stderr, "usage: vision_features MODEL PIXELS.f32 FEATURES.f32 [RUNS THREADS]\n");
    return 2;
  }
  try {
    crumb::LoadOptions options;
    const int runs = argc == 6 ? std::atoi(argv[4]) : 1;
    if (argc == 6) options.threads = std::atoi(argv[5]);
    const auto engine = crumb::Engine::load(argv[1], options);
    std::ifstream in(argv[2], std::ios::binary | std::ios::ate);
    std::vector<float> pixels(static_cast<std::size_t>(in.tellg()) / sizeof(float));
    in.seekg(0).read(reinterpret_cast<char*>(pixels.data()),
                     static_cast<std::streamsize>(pixels.size() * sizeof(float)));
    auto encoding = crumb::vision::encode(*engine, pixels);
    const std::clock_t processor = std::clock();
    const auto wall = std::chrono::steady_clock::now();
    for (int i = 0; i < runs; ++i) encoding = crumb::vision::encode(*engine, pixels);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - wall;
    std::printf("%.4f processor seconds, %.4f wall seconds an image, %s\n",
                static_cast<double>(std::clock() - processor) / CLOCKS_PER_SEC / runs,
                seconds.count() / runs, engine->backend().name.data());
    std::ofstream(argv[3], std::ios::binary)
        .write(reinterpret_cast<const char*>(encoding.features.data()),
               static_cast<std::streamsize>(encoding.features.size() * sizeof(float)));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "vision_features: %s\n", e.what());
    return 1;
  }
  return 0;
}
