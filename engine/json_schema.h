// Schemas to values of a program; for json_*.cpp only.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "engine/json_program.h"

namespace crumb::json {

class SchemaCompiler {
 public:
  explicit SchemaCompiler(Builder& builder);  // which outlives this
  ~SchemaCompiler();

  // The value of a whole schema. `place` is the JSON pointer that errors name it by. SchemaError.
  int32_t add(const nlohmann::ordered_json& schema, const std::string& place);
  int32_t any_object();
  // Once the program is finished: SchemaError if there is a schema that no finite value satisfies.
  void check(const Program& program) const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace crumb::json
