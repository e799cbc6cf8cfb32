// What the seeing part of a model is: an image becomes square patches, an encoder (a vision
// transformer, Dosovitskiy et al., "An image is worth 16x16 words", 2021) turns them into rows, and
// a projector makes rows of the decoder's width of them, which stand in the prompt like tokens.
//
//   image  -> fitted to S x S pixels, (value / 255 - mean) / std engine/vision/preprocess.h x =
//   W_patch patches + b + position; the class row, if any, first  [tokens, D] x      = norm(x) (if
//   pre_norm) layer  x += scale1 * (W_o attention(W_qkv norm1(x)));  x += scale2 * W_fc2 act(W_fc1
//   norm2(x)) x      = norm(x) (if final_norm); the class row goes rows   = u x u neighbours side
//   by side [image tokens, D u^2], then W_1, or W_2 act(W_1)
// Norms are LayerNorm with bias; attention sees everything.
#pragma once
#include <array>
#include <cstdint>
#include <string>

namespace crumb::models {

enum class VisionActivation : uint8_t { kGeluErf, kQuickGelu, kGeluTanh };
// How an image comes to S x S: the longest side to S and zeros around; the shortest side to
// `resize` and the middle; or both sides to S whatever its shape.
enum class ImageFit : uint8_t { kPad, kCrop, kStretch };
enum class ImageFilter : uint8_t { kBilinear, kBicubic, kLanczos };

struct VisionConfig {
  std::string architecture;  // a name of models/vision_towers.h
  int64_t layers = 0;
  int64_t dim = 0;  // D
  int64_t ffn = 0;
  int64_t heads = 0;  // divides D
  int64_t patch = 0;  // pixels; what S is more than a multiple of it is not seen
  int64_t image = 0;  // S, pixels
  bool class_token = false;
  bool patch_bias = true;
  bool pre_norm = false;
  bool final_norm = true;
  bool layer_scale = false;
  VisionActivation activation = VisionActivation::kGeluErf;
  float norm_eps = 1e-6f;

  ImageFit fit = ImageFit::kPad;
  ImageFilter filter = ImageFilter::kBilinear;
  int64_t resize = 0;  // of kCrop, at least S; else S
  std::array<float, 3> mean = {0.5f, 0.5f, 0.5f}, std = {0.5f, 0.5f, 0.5f};  // of red, green, blue

  int64_t unshuffle = 1;  // u, divides floor(S / patch)
  int64_t hidden = 0;     // rows of the projector's first matrix; 0: it has only one
  bool projector_bias = true;
  VisionActivation projector_activation = VisionActivation::kGeluErf;

  // Of the prompt: texts around an image's rows, in which special tokens count, and what the chat
  // template writes for an image (empty: the template knows none; its rows stand before the text).
  std::string before, after, image_text;

  bool operator==(const VisionConfig&) const = default;
};

// Patches in a row of the image; patches and the class row; rows the decoder gets; their width
// before the projector.
int64_t patches_a_side(const VisionConfig& config);
int64_t vision_tokens(const VisionConfig& config);
int64_t image_tokens(const VisionConfig& config);
int64_t projector_columns(const VisionConfig& config);

// Ranges and cross-checks of every field, before any tensor is looked at. Throws FormatError naming
// `file`, the field, the range and the value found.
void validate(const VisionConfig& config, const std::string& file);

// JSON text of the `vision` object of a checkpoint's config and back; from_json validates.
std::string to_json(const VisionConfig& config);
VisionConfig vision_from_json(const std::string& text, const std::string& file);

}  // namespace crumb::models
