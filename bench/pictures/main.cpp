// crumb_pictures: pictures of simple things and questions about them, drawn by a seed.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>

#include "bench/pictures/chance.h"
#include "bench/pictures/draw.h"
#include "bench/pictures/questions.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "models/json.h"

namespace crumb::pictures {
namespace {

struct Given {
  std::string output;
  uint64_t seed = 1, first = 0, count = 100;
  int64_t side = 224, most = 4;  // questions of a picture
};

// `most` of the questions, drawn without repetition.
std::vector<Question> drawn(std::vector<Question> questions, const Given& given, uint64_t number) {
  Chance chance(given.seed ^ 0x5155455354ull, number);
  for (std::size_t i = 0; i + 1 < questions.size(); ++i)
    std::swap(questions[i], questions[i + chance.below(questions.size() - i)]);
  if (std::ssize(questions) > given.most) questions.resize(static_cast<std::size_t>(given.most));
  return questions;
}

void run(const Given& given) {
  std::filesystem::create_directories(given.output);
  std::string lines;
  for (uint64_t number = given.first; number < given.first + given.count; ++number) {
    const Scene scene = draw_scene(given.seed, number);
    const std::string name = std::to_string(given.seed) + "-" + std::to_string(number) + ".png";
    write_png((std::filesystem::path(given.output) / name).string(), draw(scene, given.side));
    int64_t index = 0;
    for (const Question& q : drawn(questions_of(scene, given.seed, number), given, number))
      lines += nlohmann::ordered_json{{"id", "drawn/" + name.substr(0, name.size() - 4) + "/" +
                                                 std::to_string(index++)},
                                      {"image", name},
                                      {"kind", q.kind},
                                      {"question", q.text},
                                      {"answer", q.answer}}
                   .dump() +
               "\n";
    if ((number + 1 - given.first) % 500 == 0)
      std::cerr << number + 1 - given.first << " of " << given.count << " pictures\n";
  }
  models::write_file((std::filesystem::path(given.output) / "questions.jsonl").string(), lines);
}

}  // namespace
}  // namespace crumb::pictures

int main(int argc, char** argv) {
  crumb::pictures::Given given;
  CLI::App app(
      "Pictures of simple things with questions and answers: FOLDER/SEED-N.png and "
      "FOLDER/questions.jsonl.");
  app.add_option("-o,--output", given.output, "folder")->required();
  app.add_option("--seed", given.seed, "of all that is drawn");
  app.add_option("--first", given.first, "number of the first picture")
      ->check(CLI::Range(uint64_t{0}, uint64_t{1} << 39));
  app.add_option("--count", given.count, "pictures")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 24));
  app.add_option("--side", given.side, "pixels")->check(CLI::Range(16, 2048));
  app.add_option("--questions", given.most, "of a picture, at most")->check(CLI::Range(1, 32));
  CLI11_PARSE(app, argc, argv);
  try {
    crumb::pictures::run(given);
    return 0;
  } catch (const crumb::Error& error) {
    std::cerr << "crumb_pictures: error: " << error.what() << '\n';
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::cerr << "crumb_pictures: error: " << error.what() << '\n';
    return static_cast<int>(crumb::ExitCode::kInternal);
  }
}
