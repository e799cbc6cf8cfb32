#include <algorithm>
#include <cmath>

#include "apps/model_args.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "engine/vocab_tokenizer.h"
#include "models/checkpoint.h"
#include "models/errors.h"
#include "models/source.h"
#include "quant/plan.h"
#include "tokenizer/chat_template.h"

namespace crumb::apps {
namespace {

struct InspectArgs {
  std::string path;
  bool json = false, verify = false, tensors = false, render = false;
};

// What both kinds of file have in common.
struct Description {
  models::ModelConfig config;
  models::Vocab vocab;
  std::string chat_template, license, weights;
  Json recipe;                                  // null for a file that was not made here
  std::map<std::string, std::string> metadata;  // strings of a checkpoint
  quant::Plan plan;
  int64_t file_bytes = 0;
};

Json parse_or_text(const std::string& text) {
  Json json = Json::parse(text, nullptr, false);
  return json.is_discarded() ? Json(text) : json;
}

std::string value_or_empty(const std::map<std::string, std::string>& map, const std::string& key) {
  const auto found = map.find(key);
  return found == map.end() ? "" : found->second;
}

Description describe_checkpoint(const models::Checkpoint& file) {
  Description d;
  d.config = file.config();
  d.vocab = file.vocab();
  d.chat_template = file.chat_template();
  d.metadata = file.metadata();
  d.license = value_or_empty(d.metadata, "license");
  if (const std::string recipe = value_or_empty(d.metadata, "recipe"); !recipe.empty())
    d.recipe = parse_or_text(recipe);
  d.plan = quant::plan_of(file);
  d.weights = "packed";
  d.file_bytes = std::ssize(file.file().bytes());
  return d;
}

// A foreign file is described as what it becomes when read: floats.
Description describe_source(const models::SourceModel& source) {
  Description d;
  d.config = source.config;
  d.vocab = source.vocab;
  d.chat_template = source.chat_template;
  d.license = source.license;
  d.weights = source.description;
  d.file_bytes = static_cast<int64_t>(source.file_bytes);
  quant::QuantizeOptions floats;
  floats.linear.bits = floats.embedding.bits = floats.head.bits = floats.vision.bits = 32;
  d.plan = quant::make_plan(source.config, floats);
  return d;
}

int64_t parameters(const quant::Plan& plan) {
  int64_t total = 0;
  for (const auto& row : plan.rows) {
    int64_t n = 1;
    for (const int64_t size : row.tensor.shape) n *= size;
    total += n;
  }
  return total;
}

bool packed(const quant::PlanRow& row) { return row.matrix.bits != 32; }

Json json_of(const Description& d) {
  Json tensors = Json::array();
  for (const auto& row : d.plan.rows) {
    Json tensor = {{"name", row.tensor.name},
                   {"shape", row.tensor.shape},
                   {"bits", quant::stored_bits(row)},
                   {"group", packed(row) ? row.matrix.group : 0},
                   {"grid", packed(row) ? quant::grid_name(row.matrix.grid) : "none"},
                   {"bytes", row.bytes}};
    if (packed(row))
      tensor["rotation"] = {{"hadamard", row.matrix.rotation.hadamard},
                            {"seed", row.matrix.rotation.seed}};
    for (const models::Band& band : row.matrix.bands)
      tensor["bands"].push_back({band.strips, band.bits});
    tensors.push_back(std::move(tensor));
  }
  Json metadata = Json::object();
  for (const auto& [key, value] : d.metadata)
    if (key != "config" && key != "recipe" && key != "checksums") metadata[key] = value;
  return {{"schema", "crumb.inspect/1"},
          {"config", parse_or_text(models::to_json(d.config))},
          {"file_bytes", d.file_bytes},
          {"parameters", parameters(d.plan)},
          {"weights", d.weights},
          {"linear_bpw", d.plan.linear_bpw},
          {"head_bits", d.plan.head_bits},
          {"total_bpw", d.plan.total_bpw},
          {"license", d.license},
          {"tokenizer",
           {{"model", d.vocab.model},
            {"pre", d.vocab.pre},
            {"tokens", d.vocab.tokens.size()},
            {"bos", d.vocab.bos},
            {"eos", d.vocab.eos},
            {"add_bos", d.vocab.add_bos}}},
          {"chat_template", d.chat_template},
          {"tensors", std::move(tensors)},
          {"recipe", d.recipe},
          {"metadata", std::move(metadata)}};
}

// Bits of the blocks' matrices where they differ: a line a kind of matrix, a digit a layer (of
// bands the nearest whole number), and the mean.
std::string plan_lines(const quant::Plan& plan) {
  std::map<std::string, std::vector<double>> kinds;
  std::vector<std::string> order;
  double least = 32, most = 0;
  for (const auto& row : plan.rows) {
    if (row.tensor.role != models::TensorRole::kLinear || row.tensor.layer < 0 || !packed(row))
      continue;
    const std::string kind = row.tensor.name.substr(row.tensor.name.rfind('.') + 1);
    if (!kinds.contains(kind)) order.push_back(kind);
    kinds[kind].push_back(quant::stored_bits(row));
    least = std::min(least, kinds[kind].back());
    most = std::max(most, kinds[kind].back());
  }
  if (least >= most) return "";
  std::string out = "  bits of a matrix, layer by layer:\n";
  for (const std::string& kind : order) {
    std::string digits;
    double sum = 0;
    for (const double bits : kinds[kind]) {
      digits += std::to_string(std::lround(bits));
      sum += bits / static_cast<double>(kinds[kind].size());
    }
    out += fmt::format("    {:<10} {}  mean {:.2f}\n", kind, digits, sum);
  }
  return out;
}

// What is left of a pruned model, a character a layer of the whole one: FFN in eighths, KV heads; -
// for a layer that is gone.
std::string pruned_lines(const models::ModelConfig& c) {
  if (c.pruned.empty()) return "";
  const auto gone = static_cast<std::size_t>(c.whole_layers);
  std::string ffn(gone, '-'), heads(gone, '-');
  for (const models::LayerSize& size : c.pruned) {
    const auto at = static_cast<std::size_t>(size.source);
    ffn[at] = static_cast<char>(
        '0' + std::lround(8.0 * static_cast<double>(size.ffn) / static_cast<double>(c.ffn)));
    heads[at] = size.kv_heads < 10 ? static_cast<char>('0' + size.kv_heads) : '+';
  }
  return fmt::format(
      "  pruned: {} of {} layers left; layer by layer:\n    ffn/8      {}\n    kv heads   {}\n",
      c.layers, c.whole_layers, ffn, heads);
}

// Tower and projector: what an image becomes, and what they take.
std::string vision_lines(const Description& d) {
  if (!d.config.vision) return "";
  const models::VisionConfig& v = *d.config.vision;
  int64_t bytes = 0, weights = 0;
  std::vector<double> bits;  // of matrices, least and most
  for (const auto& row : d.plan.rows) {
    if (!row.tensor.name.starts_with("vision.") && !row.tensor.name.starts_with("projector."))
      continue;
    bytes += row.bytes;
    weights += models::weights_of(row.tensor);
    if (models::may_be_quantized(row.tensor.role)) bits.push_back(quant::stored_bits(row));
  }
  const auto [least, most] = std::minmax_element(bits.begin(), bits.end());
  const std::string widths = *least == *most ? fmt::format("{:.3g}", *least)
                                             : fmt::format("{:.3g}..{:.3g}", *least, *most);
  return fmt::format(
      "  sees: {}, {} layers, dim {}, ffn {}, heads {} · image {} px in patches of {} -> {} "
      "tokens\n"
      "    tower and projector {:.1f} M parameters · matrices of {} bits · {}\n",
      one_line(v.architecture), v.layers, v.dim, v.ffn, v.heads, v.image, v.patch,
      models::image_tokens(v), static_cast<double>(weights) / 1e6, widths,
      human_bytes(static_cast<double>(bytes)));
}

std::string text_of(const Description& d, const std::string& path, bool tensors) {
  const auto& c = d.config;
  std::string out = fmt::format("{}: {} ({})\n", path, one_line(c.name), one_line(c.architecture));
  out += fmt::format(
      "  {} layers · dim {} · ffn {} · heads {}/{} of {} · vocabulary {} · context {}\n", c.layers,
      c.dim, c.ffn, c.heads, c.kv_heads, c.head_dim, c.vocab, c.context);
  out += fmt::format(
      "  {:.1f} M parameters · {} · {} · linear {:.3f} bpw · head {:.3f} bits · total {:.3f} bpw\n",
      static_cast<double>(parameters(d.plan)) / 1e6, human_bytes(static_cast<double>(d.file_bytes)),
      d.weights, d.plan.linear_bpw, d.plan.head_bits, d.plan.total_bpw);
  out += fmt::format(
      "  tokenizer {} ({}) · chat template {} · license {}\n", one_line(d.vocab.model),
      one_line(d.vocab.pre),
      d.chat_template.empty() ? "none" : fmt::format("{} bytes", d.chat_template.size()),
      d.license.empty() ? "unknown" : one_line(d.license));
  out += pruned_lines(c);
  out += vision_lines(d);
  out += plan_lines(d.plan);
  if (!d.recipe.is_null()) out += "  recipe " + to_text(d.recipe, -1);
  if (!tensors) return out;
  Table table({"tensor", "shape", ">bits", ">group", "grid", ">bytes"});
  for (const auto& row : d.plan.rows)
    table.add({row.tensor.name, shape_text(row.tensor.shape),
               fmt::format("{:.3g}", quant::stored_bits(row)),
               packed(row) ? std::to_string(row.matrix.group) : "",
               packed(row) ? std::string(quant::grid_name(row.matrix.grid)) : "",
               std::to_string(row.bytes)});
  return out + table.text();
}

std::string render_sample(const Description& d) {
  if (d.chat_template.empty()) throw FormatError("the model has no chat template");
  const auto token = [&](int32_t id) {
    return id < 0 ? std::string() : d.vocab.tokens[static_cast<std::size_t>(id)];
  };
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  messages.push_back({{"role", "user"}, {"content", "Hello"}});
  messages.push_back({{"role", "assistant"}, {"content", "Hi. What can I do?"}});
  messages.push_back({{"role", "user"}, {"content", "Name three colours."}});
  const auto parsed = tokenizer::ChatTemplate::parse(d.chat_template);
  return tokenizer::joined(parsed.render({{"messages", messages},
                                          {"add_generation_prompt", true},
                                          {"bos_token", token(d.vocab.bos)},
                                          {"eos_token", token(d.vocab.eos)}}));
}

// Throws FormatError naming the tensors that differ.
void verify(const models::Checkpoint& file, const std::string& path) {
  const auto bad = file.verify();
  if (bad.empty()) return;
  throw FormatError(fmt::format("checksum differs ({}: {})", path, fmt::join(bad, ", ")),
                    "the file changed after it was written: make or copy it again");
}

}  // namespace

int inspect(Context& context) {
  InspectArgs given;
  Args args(context, "What is in a model file.");
  args.positional("FILE", given.path, true, "a .crumb or .gguf file");
  args.flag("--json", given.json, "one JSON object");
  args.flag("--verify", given.verify, "compare every tensor with its checksum");
  args.flag("--tensors", given.tensors, "list every tensor");
  args.flag("--render", given.render, "show what the chat template makes of a sample conversation");
  if (!args.parse()) return 0;
  Description description;
  if (models::is_checkpoint(given.path)) {
    const auto file = models::Checkpoint::open(given.path);
    if (given.verify) verify(file, given.path);
    description = describe_checkpoint(file);
  } else {
    description = describe_source(models::open_source(given.path));
    if (given.verify)
      throw Error(ExitCode::kUsage, "this kind of file has no checksums (" + given.path + ")");
  }
  if (given.json) {
    Json json = json_of(description);
    if (given.verify) json["verified"] = true;
    if (given.render) json["render"] = render_sample(description);
    write_stdout(to_text(json));
    return 0;
  }
  write_stdout(text_of(description, given.path, given.tensors));
  if (given.render) write_stdout(render_sample(description) + "\n");
  if (given.verify) put("  checksums of {} tensors agree\n", description.plan.rows.size());
  return 0;
}

}  // namespace crumb::apps
