#include "quant/train/student.h"

#include <algorithm>
#include <map>
#include <span>

#include "kernels/float16.h"
#include "kernels/pack.h"
#include "models/errors.h"
#include "models/json.h"
#include "models/tensors.h"
#include "quant/parallel.h"
#include "quant/rotation.h"
#include "quant/train/fake_quant.h"

namespace crumb::quant::train {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

// The codes of a matrix of one width: an empty view for a float matrix or one of several widths.
kernels::PackedMatrix packed_of(const models::MatrixView& view) {
  return view.bands.size() == 1 ? view.bands[0] : kernels::PackedMatrix{};
}

std::string words(const models::MatrixView& m) {
  if (m.bands.size() != 1) return m.bands.empty() ? "float" : "several widths";
  const kernels::PackedMatrix& packed = m.bands[0];
  return "INT" + std::to_string(packed.bits) + " groups of " + std::to_string(packed.group) +
         " of " + std::to_string(packed.cols) + ", Hadamard " + std::to_string(m.rotation.hadamard);
}

// Columns that share a scale, 0: all of a row.
int64_t group_size(const kernels::PackedMatrix& packed) {
  return packed.group == packed.cols ? 0 : packed.group;
}

// The form of the whole student: what its widest matrix has, a narrow one being a group itself.
int64_t group_of_all(const models::Checkpoint& start, const std::vector<MatrixPart>& parts) {
  int64_t group = 0;
  for (const MatrixPart& part : parts)
    group = std::max(group, group_size(packed_of(start.matrix(part.name))));
  return group;
}

void require_lawful(const models::MatrixView& m, const models::Rotation& rotation, int64_t group,
                    const std::string& name, const std::string& file) {
  const kernels::PackedMatrix packed = packed_of(m);
  const bool lawful = packed.codes != nullptr &&
                      packed.group == (group == 0 ? packed.cols : group) &&
                      (m.rotation.hadamard == 0 || m.rotation.hadamard == 64);
  if (!lawful || m.rotation != rotation)
    throw Error(ExitCode::kUsage,
                "a matrix that cannot be trained (" + file + " tensor " + name +
                    ": expected codes of one width, no rotation or Hadamard 64, one rotation and "
                    "one group size for all, found " +
                    words(m) + ")",
                "make one with crumb quantize --grid seq --group row");
}

// Where norm gains and biases stand, by their names.
std::map<std::string, int64_t> vector_places(const Student& student) {
  const ParameterLayout& layout = student.layout;
  const int64_t layers = student.config.layers, D = student.config.dim;
  std::map<std::string, int64_t> at = {{"model.norm.weight", layout.norm_at(2 * layers, D)}};
  for (int64_t l = 0; l < layers; ++l) {
    at[models::layer_tensor(l, "input_layernorm.weight")] = layout.norm_at(2 * l, D);
    at[models::layer_tensor(l, "post_attention_layernorm.weight")] = layout.norm_at(2 * l + 1, D);
  }
  for (const MatrixPart& part : student.parts)
    if (part.bias_at >= 0) at[part.name + ".bias"] = part.bias_at;
  return at;
}

void require_same_model(const models::ModelConfig& a, const models::ModelConfig& b,
                        const std::string& file) {
  const auto shape = [](const models::ModelConfig& c) {
    return std::array{c.layers,   c.dim,      c.ffn,   c.heads,
                      c.kv_heads, c.head_dim, c.vocab, int64_t{c.qkv_bias}};
  };
  if (shape(a) != shape(b) || a.pruned != b.pruned)
    throw FormatError("teacher and student are different models (" + file + ": expected " + b.name +
                      ", found " + a.name + ")");
}

// The recipe of `start` with one more stage.
std::string with_stage(const std::string& recipe, const std::string& stage) {
  nlohmann::ordered_json json = nlohmann::ordered_json::parse(recipe, nullptr, false);
  if (!json.is_object()) json = nlohmann::ordered_json::object();
  json["stages"].push_back(nlohmann::ordered_json::parse(stage));
  return json.dump();
}

models::MatrixPlan plan_for(const std::string& name, const models::MatrixView& m) {
  if (m.bands.size() > 1)
    throw Error(ExitCode::kUsage,
                "a student cannot keep a matrix of several widths yet (" + name + ")");
  models::MatrixPlan plan;
  plan.name = name;
  plan.bits = 32;
  if (m.bands.empty()) return plan;
  plan.bits = m.bands[0].bits;
  plan.group = m.bands[0].group;
  plan.grid = m.bands[0].grid;
  plan.rotation = m.rotation;
  return plan;
}

// The stored bytes of a packed matrix.
models::PackedData copy_of(const models::MatrixView& m) {
  const kernels::PackedMatrix p = packed_of(m);
  models::PackedData data;
  data.rows = p.rows;
  data.cols = p.cols;
  data.group = p.group;
  data.bits = p.bits;
  data.grid = p.grid;
  data.rotation = m.rotation;
  const int64_t strips = kernels::strip_count(p.rows);
  const int64_t groups = strips * kernels::group_count(p.cols, p.group) * kernels::kStripRows;
  data.codes.assign(p.codes, p.codes + strips * kernels::strip_code_bytes(p.cols, p.bits));
  data.scales.assign(p.scales, p.scales + groups);
  if (p.zeros != nullptr) data.zeros.assign(p.zeros, p.zeros + groups);
  return data;
}

// The fake-quantized form of one matrix of the student, as it is stored.
models::PackedData packed_matrix(const Student& student, std::size_t index,
                                 const kernels::PackedMatrix& start, int threads) {
  const MatrixPart& part = student.parts[index];
  const MatrixForm& form = student.forms[index];
  const auto* p = student.parameters.data();
  // fake_quantize() leaves a scale of 0 alone: groups that were zeros stay zeros. Codes are new.
  FakeQuant quant{unpack(start, threads), {}, {}};
  quant.rounded.bits = form.bits;
  quant.master.assign(p + part.master_at, p + part.master_at + part.N * part.K);
  quant.log_scale.assign(p + part.scale_at, p + part.scale_at + part.N * part.groups);
  std::vector<float> unused(quant.master.size());
  fake_quantize(&quant, unused, threads);
  return pack(quant.rounded, student.rotation);
}

}  // namespace

Student student_from(const models::Checkpoint& start, const models::SourceModel& masters,
                     int threads, bool embedding) {
  models::require_plain_block(start.config(), "training");
  models::require_blind(start.config(), "training");
  if (embedding && !start.config().tied_head)
    throw Error(ExitCode::kUsage,
                "training the embedding (expected a model whose head is its embedding, found a "
                "head of its own)",
                "leave embedding_rate 0");
  const std::string& file = start.file().path();
  require_same_model(start.config(), masters.config, file);
  const int64_t group = group_of_all(start, matrix_parts(parameter_layout(start.config())));
  Student student{
      start.config(), {}, parameter_layout(start.config(), group, embedding), {}, {}, {}, {}};
  student.parts = matrix_parts(student.layout);
  student.rotation = start.matrix(student.parts.at(0).name).rotation;
  student.parameters.resize(size_of(student.layout.size));
  for (const MatrixPart& part : student.parts) {
    const models::MatrixView view = start.matrix(part.name);
    require_lawful(view, student.rotation, part.groups == 1 ? 0 : group, part.name, file);
    const kernels::PackedMatrix packed = packed_of(view);
    student.forms.push_back({packed.bits, packed.grid});
    std::vector<float> w(size_of(part.N * part.K));
    masters.read(part.name, w);
    if (student.rotation.hadamard != 0) rotate_rows(w, part.K, student.rotation, threads);
    const FakeQuant quant = fake_quant_from(w, unpack(packed, threads));
    float* p = student.parameters.data();
    std::copy(quant.master.begin(), quant.master.end(), p + part.master_at);
    std::copy(quant.log_scale.begin(), quant.log_scale.end(), p + part.scale_at);
    student.zeros.push_back(quant.rounded.zeros);
  }
  for (const auto& [name, at] : vector_places(student)) {
    const auto values = start.vector(name);
    std::copy(values.begin(), values.end(), student.parameters.begin() + at);
  }
  return student;
}

void require_rows(const Student& student, const std::string& what) {
  const bool zeros = std::ranges::any_of(student.zeros, [](const auto& z) { return !z.empty(); });
  if (student.layout.group == 0 && !zeros) return;
  throw Error(
      ExitCode::kUsage,
      what + " (expected a start with one scale a row and no zero points, found " +
          (student.layout.group == 0 ? "the asym grid"
                                     : "groups of " + std::to_string(student.layout.group)) +
          ")",
      "make one with crumb quantize --grid seq --group row");
}

uint64_t export_student(const Student& student, const models::Checkpoint& start,
                        const std::string& stage, const std::string& path, int threads) {
  const models::ModelConfig& c = student.config;
  models::CheckpointHeader header;
  header.config = c;
  header.vocab = start.vocab();
  header.chat_template = start.chat_template();
  header.generation = start.generation();
  header.license = start.metadata().at("license");
  header.recipe = with_stage(start.metadata().at("recipe"), stage);
  const auto table = models::tensor_table(c);
  std::map<std::string_view, std::size_t> trained;  // index of the part
  for (std::size_t i = 0; i < student.parts.size(); ++i) trained[student.parts[i].name] = i;
  std::vector<models::MatrixPlan> plans;
  for (const models::TensorInfo& info : table) {
    if (!models::may_be_quantized(info.role)) continue;
    plans.push_back(plan_for(info.name, start.matrix(info.name)));
    const auto part = trained.find(info.name);
    if (part != trained.end()) plans.back().bits = student.forms[part->second].bits;
  }
  models::CheckpointWriter writer(path, header, plans);
  const auto vectors = vector_places(student);
  for (const models::TensorInfo& info : table) {
    if (!models::may_be_quantized(info.role)) {
      const float* values = student.parameters.data() + vectors.at(info.name);
      writer.add(info.name, std::span(values, size_of(info.shape[0])));
      continue;
    }
    const models::MatrixView view = start.matrix(info.name);
    const auto part = trained.find(info.name);
    if (part != trained.end()) {
      writer.add(info.name, packed_matrix(student, part->second, packed_of(view), threads));
    } else if (!view.bands.empty()) {
      writer.add(info.name, copy_of(view));
    } else {
      writer.add(info.name, view.f32);
    }
  }
  return writer.commit();
}

}  // namespace crumb::quant::train
