// One text on its way through a grammar.
#pragma once
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "engine/json_grammar.h"
#include "engine/token_filter.h"
#include "engine/token_trie.h"
#include "tokenizer/tokenizer.h"

namespace crumb {

class JsonMatcher : public TokenFilter {
 public:
  // `stop`: sorted ids that end an answer; allowed where the text may end.
  JsonMatcher(std::shared_ptr<const JsonGrammar> grammar, const tokenizer::Tokenizer& tokenizer,
              std::shared_ptr<const TokenTrie> trie, std::vector<int32_t> stop);
  ~JsonMatcher() override;

  // Tokens that may still be written, the next one included. A token after which the rest could not
  // be finished with those left is not allowed, as long as there is another.
  void set_budget(int64_t tokens);

  bool allows(int32_t id) override;
  bool list(std::vector<int32_t>& ids) override;

  // Takes a token that was allowed. False (nothing changes) if its bytes do not fit the grammar.
  bool accept(int32_t id);
  bool accept_bytes(std::string_view bytes);
  bool may_end() const;   // the text so far is complete
  bool must_end() const;  // and nothing can follow
  int64_t need() const;   // least bytes to the end, 0 if it may end

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crumb
