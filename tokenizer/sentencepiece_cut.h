// How SentencePiece models cut a normalized text, but for unigram.h: by merging (BPE), at spaces
// (word), into characters. The ids are the sentencepiece library's, which is the twin in the tests:
// it keeps a record of 40 bytes on one heap for each pair of the whole text, and a message for each
// piece, and so takes a second for a megabyte.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/flat_index.h"
#include "tokenizer/piece.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/tokenizer.h"

namespace crumb::tokenizer {

// The pieces that text can become: normal, user-defined and unused ones. Keeps views of
// data.tokens, which must outlive this; check_pieces has passed it.
class PieceIndex {
 public:
  explicit PieceIndex(const TokenizerData& data);
  int32_t find(std::string_view text) const;  // -1: none
  // The user-defined symbol that text[at..] starts with (the longest), or the character there.
  struct Unit {
    std::size_t bytes;
    int32_t symbol;  // -1: a character
  };
  Unit unit_at(std::string_view text, std::size_t at) const;
  const TokenizerData& data() const { return *data_; }

 private:
  const TokenizerData* data_;
  FlatIndex by_text_;
  SpecialTokens symbols_;
};

// BPE: of neighbours that together are a piece the ones of the best score merge (the leftmost of
// equals) until none are left. User-defined symbols of the text do not merge. An unused piece is
// taken apart again into the two it was last seen as.
class MergeCut {
 public:
  explicit MergeCut(const TokenizerData& data);
  std::vector<Piece> cut(std::string_view text) const;

 private:
  struct Work;
  std::size_t word_end(std::string_view text, std::size_t begin) const;
  void find_joined(Work& work, int32_t left) const;
  void split(Work& work, std::string_view word) const;
  void merge(Work& work) const;
  void put_pieces(Work& work, std::vector<Piece>& out) const;

  PieceIndex index_;
  std::vector<uint32_t> ranks_;  // [V], 0 for the best score; equal scores are of one rank
  std::size_t longest_ = 0;      // bytes
  // Whether no piece holds a space mark behind another character, or before one: nothing merges
  // over such a place, and words can be cut one by one.
  bool starts_words_ = true, ends_words_ = true;
};

// A word goes from one space mark to the next.
class WordCut {
 public:
  explicit WordCut(const TokenizerData& data) : index_(data) {}
  std::vector<Piece> cut(std::string_view text) const;

 private:
  PieceIndex index_;
};

class CharacterCut {
 public:
  explicit CharacterCut(const TokenizerData& data) : index_(data) {}
  std::vector<Piece> cut(std::string_view text) const;

 private:
  PieceIndex index_;
};

}  // namespace crumb::tokenizer
