// The whole of Distill-QAT on a tiny model, on the CPU: start, step, loop, states, export.
#include <barrier>
#include <cmath>
#include <fstream>
#include <future>
#include <map>

#include "models/errors.h"
#include "quant/train/cpu_distiller.h"
#include "quant/train/token_data.h"
#include "quant/train/train_job.h"
#include "tests/quant/finite_difference.h"
#include "tests/quant/tiny_job.h"

namespace crumb::quant::train {
namespace {

namespace fs = std::filesystem;

class Distill : public TinyJob {
 protected:
  TrainRecipe recipe() const { return TinyJob::recipe(12); }
};

std::vector<std::string> matrices(const Student& student) {
  std::vector<std::string> names;
  for (const auto& layer : student.layout.layers)
    for (const MatrixSlot& slot : layer)
      names.insert(names.end(), slot.names.begin(), slot.names.end());
  return names;
}

std::vector<float> weights_of(const models::SourceModel& source, const std::string& name,
                              const ParameterLayout& layout) {
  for (const auto& layer : layout.layers)
    for (const MatrixSlot& slot : layer)
      for (std::size_t i = 0; i < slot.names.size(); ++i)
        if (slot.names[i] == name) {
          std::vector<float> w(static_cast<std::size_t>(slot.rows[i] * slot.K));
          source.read(name, w);
          return w;
        }
  return {};
}

// One scale a row, groups (192 columns are one and a half of 128), zero points.
struct Form {
  int64_t group;
  kernels::Grid grid;
};
constexpr Form kForms[] = {{0, kernels::Grid::kSeq},   {0, kernels::Grid::kLsq},
                           {0, kernels::Grid::kAsym},  {32, kernels::Grid::kSeq},
                           {64, kernels::Grid::kAsym}, {128, kernels::Grid::kLsq}};

TEST_F(Distill, AnUntrainedStudentIsExportedAsItsStart) {
  for (const Form& form : kForms) {
    const TinyStart tiny = tiny_start(path("start.crumb"), 64, false, 2, form.group, form.grid);
    export_student(tiny.student, tiny.start, R"({"stage":"test"})", path("out.crumb"));
    const auto out = models::open_source(path("out.crumb"));
    for (const std::string& name : matrices(tiny.student))
      EXPECT_EQ(weights_of(out, name, tiny.student.layout),
                weights_of(tiny.source, name, tiny.student.layout))
          << name << ", group " << form.group;
  }
}

TEST_F(Distill, AnExportedStudentHasOneMoreStage) {
  const TinyStart tiny = tiny_start(path("start.crumb"));
  export_student(tiny.student, tiny.start, R"({"stage":"test"})", path("out.crumb"));
  const auto recipe = models::Checkpoint::open(path("out.crumb")).metadata().at("recipe");
  EXPECT_NE(recipe.find(R"({"stage":"test"})"), std::string::npos);
}

// A plain forward pass over the exported file is the fake-quantized one: the KL that the distiller
// measures is that of a distiller whose student is read back.
TEST_F(Distill, TrainedCodesGiveTheForwardPassThatWasTrained) {
  for (const Form& form : kForms) {
    SCOPED_TRACE("group " + std::to_string(form.group));
    TinyStart tiny = tiny_start(path("start.crumb"), 64, false, 2, form.group, form.grid);
    const auto distiller = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
    StepOptions options;
    options.masters = options.norms = options.scales = adam_step({}, 1, 2e-2);
    distiller->step(tiny_tokens(2 * kS, 1), options);
    EXPECT_GT(distiller->changed_codes(), 0);
    tiny.student.parameters = distiller->state().parameters;
    export_student(tiny.student, tiny.start, "{}", path("out.crumb"));
    const auto ids = tiny_tokens(2 * kS, 9);
    const StepReport trained = distiller->evaluate(ids, {});
    // The exported student as a teacher of itself: no divergence at all between file and masters.
    const auto exported = models::open_source(path("out.crumb"));
    const auto itself = make_cpu_distiller(exported, exported, tiny.student, kS);
    EXPECT_LT(itself->evaluate(ids, {}).kl, 1e-10);
    EXPECT_GT(trained.kl, 1e-3);
  }
}

// The straight-through gradient of norm gains and biases is a true one: no rounding stands between.
TEST_F(Distill, TheGradientOfNormGainsAndBiasesIsTheFiniteDifference) {
  TinyStart tiny = tiny_start(path("start.crumb"), 64, true);
  const auto ids = tiny_tokens(kS, 1);
  const auto distiller = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
  StepOptions options;
  options.loss = {LossKind::kJsd, 0.5f};
  options.masters = options.norms = options.scales = adam_step({0.0, 0.99, 1e-8, 0}, 1, 0);
  options.gradient_limit = 1e9;
  distiller->step(ids, options);
  TrainingState state = distiller->state();
  const ParameterLayout& layout = tiny.student.layout;
  const auto expect_part = [&](const std::string& name, int64_t at, int64_t n) {
    const auto part = [&](std::vector<float>& all) {
      return std::span(all).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(n));
    };
    expect_gradient(
        name, part(state.parameters), part(state.mean),
        [&] {
          distiller->set_state(state);
          return distiller->evaluate(ids, options.loss).loss;
        },
        2e-3);
  };
  expect_part("norm gains", layout.norms_at, layout.norms);
  EXPECT_EQ(layout.biases, tiny.student.config.layers * layout.layers[0][0].N);
  expect_part("biases", layout.biases_at, layout.biases);
}

TEST_F(Distill, BiasesAreTrainedAndExported) {
  TinyStart tiny = tiny_start(path("start.crumb"), 64, true);
  const auto distiller = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
  StepOptions options;
  options.masters = options.norms = options.scales = adam_step({}, 1, 2e-2);
  distiller->step(tiny_tokens(2 * kS, 1), options);
  tiny.student.parameters = distiller->state().parameters;
  export_student(tiny.student, tiny.start, "{}", path("out.crumb"));
  const auto out = models::Checkpoint::open(path("out.crumb"));
  const std::string name = "model.layers.1.self_attn.k_proj.bias";
  const auto was = tiny.start.vector(name), now = out.vector(name);
  const float* trained = tiny.student.parameters.data() + tiny.student.layout.layers[1][0].bias_at +
                         tiny.student.layout.layers[1][0].rows[0];
  for (std::size_t i = 0; i < now.size(); ++i) {
    ASSERT_EQ(now[i], trained[i]);
    ASSERT_NE(now[i], was[i]);
  }
  const auto ids = tiny_tokens(2 * kS, 9);
  const auto exported = models::open_source(path("out.crumb"));
  const auto itself = make_cpu_distiller(exported, exported, tiny.student, kS);
  EXPECT_LT(itself->evaluate(ids, {}).kl, 1e-10);
}

// Windows are added one by one whoever computed them.
TEST_F(Distill, AStepDoesNotDependOnThreads) {
  const TinyStart tiny = tiny_start(path("start.crumb"));
  StepOptions options;
  options.masters = options.norms = options.scales = adam_step({}, 1, 1e-2);
  std::vector<float> first;
  for (const int threads : {1, 2, 3}) {
    const auto distiller =
        make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS, {threads, {}, nullptr});
    distiller->step(tiny_tokens(4 * kS, 1), options);
    if (first.empty()) first = distiller->state().parameters;
    EXPECT_EQ(distiller->state().parameters, first) << threads;
  }
}

// On the CPU micro-batches are one batch to the last bit: windows are added in their order.
TEST_F(Distill, MicroBatchesAreOneLargeBatch) {
  const TinyStart tiny = tiny_start(path("start.crumb"));
  const auto run = [&](int64_t batch, int64_t accumulate) {
    TrainJob job;
    job.recipe = recipe();
    job.recipe.batch = batch;
    job.recipe.accumulate = accumulate;
    job.recipe.steps = 4;
    const TrainText text = read_train_text(job.recipe, tiny.teacher);
    job.text = &text;
    const auto distiller = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
    TrainingPlace place;
    EXPECT_EQ(train(job, *distiller, place), TrainEnd::kDone);
    EXPECT_EQ(place.cursor, 16);
    return distiller->state().parameters;
  };
  const auto whole = run(4, 1);
  EXPECT_EQ(run(2, 2), whole);
  EXPECT_EQ(run(1, 4), whole);
}

// Sums over threads that stand for the processes of a group.
class ThreadGroup {
 public:
  explicit ThreadGroup(int size) : size_(size), barrier_(size) {}
  class Member final : public AllReduce {
   public:
    Member(ThreadGroup& group, int rank) : group_(group), rank_(rank) {}
    int rank() const override { return rank_; }
    int size() const override { return group_.size_; }
    void sum(std::span<float> values) override { reduce(values); }
    void sum(std::span<double> values) override { reduce(values); }

   private:
    template <class T>
    void reduce(std::span<T> values) {
      auto& sums = group_.sums_;
      for (int turn = 0; turn < group_.size_; ++turn) {
        if (turn == rank_) {
          if (turn == 0) sums.assign(values.size(), 0);
          for (std::size_t i = 0; i < values.size(); ++i) sums[i] += static_cast<double>(values[i]);
        }
        group_.barrier_.arrive_and_wait();
      }
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(sums[i]);
      group_.barrier_.arrive_and_wait();
    }
    ThreadGroup& group_;
    int rank_;
  };

 private:
  int size_;
  std::barrier<> barrier_;
  std::vector<double> sums_;
};

// Two that share every batch: float sums in another order, otherwise one with the whole batch.
TEST_F(Distill, AGroupSharesEveryBatch) {
  const TinyStart tiny = tiny_start(path("start.crumb"));
  TrainJob job;
  job.recipe = recipe();
  job.recipe.batch = 4;
  job.recipe.steps = 4;
  const TrainText text = read_train_text(job.recipe, tiny.teacher);
  job.text = &text;
  struct End {
    TrainingState state;
    std::vector<double> losses;
  };
  const auto run = [&](AllReduce* group) {
    CpuOptions options;
    options.group = group;
    const auto distiller = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS, options);
    TrainJob own = job;
    End end;
    own.group = group;
    own.report = [&](const TrainProgress& p) { end.losses.push_back(p.last.loss); };
    TrainingPlace place;
    EXPECT_EQ(train(own, *distiller, place), TrainEnd::kDone);
    end.state = distiller->state();
    return end;
  };
  const auto run_two = [&] {
    ThreadGroup group(2);
    ThreadGroup::Member a(group, 0), b(group, 1);
    auto other = std::async(std::launch::async, [&] { return run(&b); });
    const End first = run(&a), second = other.get();
    EXPECT_EQ(first.state.parameters, second.state.parameters);
    return first;
  };
  const End one = run(nullptr), two = run_two(), again = run_two();
  EXPECT_EQ(two.state.parameters, again.state.parameters);
  for (std::size_t i = 0; i < one.losses.size(); ++i)
    EXPECT_NEAR(two.losses[i], one.losses[i], 1e-4 * one.losses[i]);
  // A first moment that is all rounding may have either sign; on the whole they are one.
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < one.state.mean.size(); ++i) {
    const auto a = static_cast<double>(one.state.mean[i]);
    const double d = a - static_cast<double>(two.state.mean[i]);
    difference += d * d;
    size += a * a;
  }
  EXPECT_LT(std::sqrt(difference / size), 1e-3);
}

// Asked to stop in the middle of a step, one of a group takes the other with it.
TEST_F(Distill, AGroupStopsTogether) {
  const TinyStart tiny = tiny_start(path("start.crumb"));
  TrainJob job;
  job.recipe = recipe();
  job.recipe.kept_back = "";
  const TrainText text = read_train_text(job.recipe, tiny.teacher);
  job.text = &text;
  ThreadGroup group(2);
  const auto run = [&](int rank) {
    ThreadGroup::Member member(group, rank);
    int64_t steps = 0;
    CpuOptions options;
    options.threads = 1;
    options.group = &member;
    options.progress = [&](const Progress& p) {
      if (p.done == 1) ++steps;
      return rank == 0 || steps < 3 || p.done < 2;
    };
    const auto distiller = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS, options);
    TrainJob own = job;
    own.group = &member;
    TrainingPlace place;
    EXPECT_EQ(train(own, *distiller, place), TrainEnd::kStopped);
    return place.step;
  };
  auto other = std::async(std::launch::async, [&] { return run(1); });
  EXPECT_EQ(run(0), 2);
  EXPECT_EQ(other.get(), 2);
}

// In the middle of a step: the state on disk is that of the step before, and nothing is lost.
TEST_F(Distill, AnInterruptedStepLeavesTheStateOfTheStepBefore) {
  const TinyStart tiny = tiny_start(path("start.crumb"));
  TrainJob job;
  job.recipe = recipe();
  job.recipe.kept_back = "";
  job.recipe.steps = 5;
  const TrainText text = read_train_text(job.recipe, tiny.teacher);
  job.text = &text;
  const auto straight = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
  TrainingPlace place;
  train(job, *straight, place);

  int64_t steps = 0;
  CpuOptions options;
  options.threads = 1;
  options.progress = [&](const Progress& p) {
    EXPECT_EQ(p.total, 2 * 2 * 3);  // windows, layers, ways through a block
    if (p.done == 1) ++steps;
    return steps < 4 || p.done < 5;
  };
  job.state_prefix = path("state");
  const auto first = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS, options);
  TrainingPlace part;
  part.recipe = to_json(job.recipe);
  EXPECT_EQ(train(job, *first, part), TrainEnd::kStopped);
  EXPECT_EQ(part.step, 3);
  auto loaded = load_full(path("state"));
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->place.step, 3);
  const auto second = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
  second->set_state(loaded->state);
  EXPECT_EQ(train(job, *second, loaded->place), TrainEnd::kDone);
  EXPECT_EQ(second->state().parameters, straight->state().parameters);
}

TEST_F(Distill, AStateOfAnotherModelIsRefused) {
  const TinyStart tiny = tiny_start(path("start.crumb"));
  const auto distiller = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
  TrainingState state = distiller->state();
  state.parameters.pop_back();
  EXPECT_THROW(distiller->set_state(state), FormatError);
}

TEST_F(Distill, TrainingLowersTheDivergenceAndResumesToTheSameBytes) {
  const TinyStart tiny = tiny_start(path("start.crumb"));
  TrainJob job;
  job.recipe = recipe();
  const TrainText text = read_train_text(job.recipe, tiny.teacher);
  job.text = &text;
  std::map<int64_t, TrainProgress> reports;
  job.report = [&](const TrainProgress& p) {
    EXPECT_EQ(p.changed_codes >= 0, p.step % 4 == 0);
    reports[p.step] = p;
  };
  const auto straight = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
  TrainingPlace place;
  EXPECT_EQ(train(job, *straight, place), TrainEnd::kDone);
  EXPECT_LT(reports.at(12).kept_back.kl, 0.9 * reports.at(0).kept_back.kl);
  EXPECT_GT(reports.at(12).changed_codes, 0);

  bool stop = false;
  job.stop = [&] { return stop; };
  job.state_prefix = path("state");
  job.report = [&](const TrainProgress& p) { stop = p.step >= 4; };
  const auto first = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
  TrainingPlace part;
  part.recipe = to_json(job.recipe);
  EXPECT_EQ(train(job, *first, part), TrainEnd::kStopped);
  EXPECT_EQ(part.step, 4);
  auto loaded = load_full(path("state"));
  ASSERT_TRUE(loaded);
  EXPECT_EQ(recipe_from_json(loaded->place.recipe).steps, 12);
  const auto second = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
  second->set_state(loaded->state);
  job.stop = nullptr;
  job.report = nullptr;
  EXPECT_EQ(train(job, *second, loaded->place), TrainEnd::kDone);
  EXPECT_EQ(second->state().parameters, straight->state().parameters);
}

// As by rows, but every group learns a scale of its own.
TEST_F(Distill, GroupsAndZeroPointsAreTrained) {
  for (const Form& form : {Form{32, kernels::Grid::kSeq}, Form{64, kernels::Grid::kAsym}}) {
    const TinyStart tiny = tiny_start(path("start.crumb"), 64, false, 2, form.group, form.grid);
    const ParameterLayout& layout = tiny.student.layout;
    EXPECT_EQ(layout.group, form.group);
    int64_t scales = 0;
    for (const MatrixPart& part : tiny.student.parts)
      scales += part.N * ((part.K + form.group - 1) / form.group);
    EXPECT_EQ(layout.scales, scales);
    const TrainingState state = trained(recipe(), tiny);
    int64_t moved = 0;
    for (auto i = static_cast<std::size_t>(layout.scales_at); i < state.parameters.size(); ++i)
      moved += state.parameters[i] != tiny.student.parameters[i];
    EXPECT_GT(moved, layout.scales * 9 / 10);
    EXPECT_THROW(require_rows(tiny.student, "test"), Error);
  }
}

TEST_F(Distill, MuonLowersTheDivergenceAndKeepsItsMomentumInTheState) {
  const TinyStart tiny = tiny_start(path("start.crumb"));
  TrainRecipe muon = recipe();
  muon.optimiser = Optimiser::kMuon;
  muon.rate = 4e-3;
  const TrainingState state = trained(muon, tiny);
  const auto masters = static_cast<std::size_t>(tiny.student.layout.masters);
  EXPECT_GT(square_sum(std::span(state.mean).first(masters)), 0);
  EXPECT_EQ(square_sum(std::span(state.square).first(masters)), 0);
  EXPECT_GT(square_sum(std::span(state.square).subspan(masters)), 0);
}

TEST_F(Distill, OfTwoStateFilesTheWholeOneIsUsed) {
  const TinyStart tiny = tiny_start(path("start.crumb"));
  EXPECT_FALSE(load_full(path("state")));
  const auto& p = tiny.student.parameters;
  TrainingFile file{{3, 6, 0, 0, "{}"}, {p, p, p}};
  save_full(path("state"), file.place, file.state);
  file.place.step = 4;
  save_full(path("state"), file.place, file.state);
  EXPECT_EQ(load_full(path("state"))->place.step, 4);
  const std::string newer = path("state.b");
  fs::resize_file(newer, fs::file_size(newer) - 4);
  EXPECT_EQ(load_full(path("state"))->place.step, 3);
  file.place.step = 5;
  save_full(path("state"), file.place, file.state);
  EXPECT_EQ(load_full(path("state"))->place.step, 5);
}

TEST_F(Distill, ACompactStateKeepsCodesExactlyAndMastersNearly) {
  TinyStart tiny = tiny_start(path("start.crumb"));
  auto& p = tiny.student.parameters;
  const auto noise = random_weights(tiny.student.layout.masters, 4, 0.02f);
  for (std::size_t i = 0; i < noise.size(); ++i) p[i] += noise[i];
  const TrainingFile file{{7, 70, 0, 0, "{}"}, {p, p, p}};
  EXPECT_EQ(save_compact(path("compact"), tiny.student, file), 1);
  const TrainingFile back = load_compact(path("compact"), tiny.student);
  EXPECT_EQ(back.place.step, 7);
  EXPECT_EQ(back.place.moments_from, 7);
  Student again = tiny.student;
  again.parameters = back.state.parameters;
  export_student(tiny.student, tiny.start, "{}", path("a.crumb"));
  export_student(again, tiny.start, "{}", path("b.crumb"));
  const auto read = [](const std::string& name) {
    std::ifstream in(name, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  EXPECT_EQ(read(path("a.crumb")), read(path("b.crumb")));
  for (std::size_t i = 0; i < tiny.student.parts.size(); ++i) {
    const MatrixPart& part = tiny.student.parts[i];
    const int levels = 1 << tiny.student.forms[i].bits;
    double off = 0;
    for (int64_t n = 0; n < part.N; ++n)
      for (int64_t k = 0; k < part.K; ++k) {
        const auto at = static_cast<std::size_t>(part.master_at + n * part.K + k);
        const float scale = std::exp(p[static_cast<std::size_t>(part.scale_at + n)]);
        // Beyond a step outside of the grid a master is clamped.
        if (std::abs(p[at]) < (0.5f * static_cast<float>(levels) + 0.9f) * scale)
          off = std::max(off, static_cast<double>(std::abs(again.parameters[at] - p[at]) / scale));
      }
    EXPECT_LT(off, 0.5 / (256 / (levels + 2)) + 1e-3) << part.name;
  }
}

TEST_F(Distill, ACompactStateKeepsTheCodesOfGroups) {
  for (const Form& form : kForms) {
    SCOPED_TRACE("group " + std::to_string(form.group));
    TinyStart tiny = tiny_start(path("start.crumb"), 64, false, 2, form.group, form.grid);
    auto& p = tiny.student.parameters;
    const auto noise = random_weights(tiny.student.layout.masters, 4, 0.02f);
    for (std::size_t i = 0; i < noise.size(); ++i) p[i] += noise[i];
    save_compact(path("compact"), tiny.student, {{7, 70, 0, 0, "{}"}, {p, p, p}});
    Student again = tiny.student;
    again.parameters = load_compact(path("compact"), tiny.student).state.parameters;
    export_student(tiny.student, tiny.start, "{}", path("a.crumb"));
    export_student(again, tiny.start, "{}", path("b.crumb"));
    const auto a = models::open_source(path("a.crumb")), b = models::open_source(path("b.crumb"));
    for (const std::string& name : matrices(tiny.student))
      EXPECT_EQ(weights_of(a, name, tiny.student.layout), weights_of(b, name, tiny.student.layout))
          << name;
  }
}

TEST_F(Distill, AStartOfAnotherFormIsRefused) {
  EXPECT_NO_THROW(tiny_start(path("plain.crumb"), 0));
  const TinyStart tiny = tiny_start(path("start.crumb"));
  QuantizeOptions options;
  options.bits = {{"model.layers.1.mlp.up_proj", 32}};
  options.embedding = options.head = options.linear;
  quantize(tiny.teacher, options, path("float.crumb"), {});
  EXPECT_THROW(student_from(models::Checkpoint::open(path("float.crumb")), tiny.teacher), Error);
}

TEST(TokenData, EveryEpochIsAnotherPermutation) {
  for (const int64_t n : {1, 2, 7, 64, 1000}) {
    std::vector<int> seen(static_cast<std::size_t>(n));
    for (int64_t i = 0; i < n; ++i) ++seen[static_cast<std::size_t>(permuted(i, n, 5))];
    EXPECT_EQ(seen, std::vector<int>(static_cast<std::size_t>(n), 1)) << n;
  }
  int same = 0;
  for (int64_t i = 0; i < 1000; ++i) same += permuted(i, 1000, 5) == permuted(i, 1000, 6);
  EXPECT_LT(same, 10);
}

// Texts are tokenized and their last windows kept back; files of the same ids are the same text.
TEST_F(Distill, TextsBecomeWindowsOfTheirOwn) {
  const models::SourceModel teacher = models::tiny_model({});
  std::ofstream(path("a.txt")) << std::string(4000, 'a') + std::string(4000, 'b');
  TrainRecipe r;
  r.text = {path("a.txt")};
  r.batch = 2;
  r.window = 16;
  r.kept_windows = 5;
  const TrainText text = read_train_text(r, teacher);
  EXPECT_GT(text.data.windows(), 10);
  EXPECT_EQ(std::ssize(text.kept_back), 4 * 16);  // a multiple of the batch
  std::vector<int32_t> ids(16);
  text.data.read(text.data.windows() - 1, ids);
  std::ofstream file(path("ids"), std::ios::binary);
  TokenData memory(16);
  memory.add(ids);
  for (const int32_t id : ids)
    file.put(static_cast<char>(id & 255)).put(static_cast<char>(id >> 8));
  file.close();
  TokenData on_disk(16);
  on_disk.add_file(path("ids"));
  EXPECT_EQ(on_disk.hash(), memory.hash());
  r.seed = 2;  // one document: the same order
  EXPECT_EQ(read_train_text(r, teacher).hash, text.hash);
  r.kept_windows = 0;
  EXPECT_NE(read_train_text(r, teacher).hash, text.hash);
}

TEST(TrainRecipe, AStateBelongsToARunAndNotToItsPaths) {
  TrainRecipe a;
  a.data = {"a"};
  TrainRecipe b = a;
  b.save_seconds = 1;
  b.report_every = 3;
  b.teacher = "t";
  EXPECT_TRUE(same_run(a, b));
  b.data = {"b"};
  EXPECT_FALSE(same_run(a, b));
  a.inputs = b.inputs = "1";
  EXPECT_TRUE(same_run(a, b));
  b.inputs = "2";
  EXPECT_FALSE(same_run(a, b));
  b = a;
  b.rate *= 2;
  EXPECT_FALSE(same_run(a, b));
}

TEST(TrainRecipe, IsReadBackAndNamesWhatItDoesNotKnow) {
  TrainRecipe recipe;
  recipe.data = {"a", "b"};
  recipe.loss = {LossKind::kJsd, 0.25f};
  recipe.rate = 0.5;
  recipe.optimiser = Optimiser::kMuon;
  const TrainRecipe again = recipe_from_json(to_json(recipe));
  EXPECT_EQ(to_json(again), to_json(recipe));
  EXPECT_THROW(recipe_from_json(R"({"data":["a"],"rats":1})"), Error);
  EXPECT_THROW(recipe_from_json(R"({"data":["a"],"loss":{"kind":"l2"}})"), Error);
  EXPECT_THROW(recipe_from_json(R"({"data":["a"],"optimiser":"sgd"})"), Error);
  EXPECT_THROW(recipe_from_json(R"({"data":[]})"), Error);
  EXPECT_THROW(recipe_from_json(R"({"data":["a"],"steps":"many"})"), Error);
  EXPECT_THROW(recipe_from_json(R"({"data":["a"],"rate":0})"), Error);
  EXPECT_THROW(recipe_from_json(R"({"data":["a"],"loss":"jsd"})"), Error);
  EXPECT_THROW(recipe_from_json("[1]"), Error);
}

}  // namespace
}  // namespace crumb::quant::train
