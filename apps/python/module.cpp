// The C API as Python sees it: two classes and one exception. The interpreter's lock is released
// while a model runs and taken again for each piece of text.
#include <crumb.h>
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace py = pybind11;

namespace {

struct Failure {
  crumb_status status;
  std::string message;
};

void check(crumb_status status) {
  if (status != CRUMB_OK) throw Failure{status, crumb_last_error()};
}

struct Close {
  void operator()(crumb_model* model) const { crumb_model_close(model); }
  void operator()(crumb_chat* chat) const { crumb_chat_close(chat); }
};

struct Model {
  std::unique_ptr<crumb_model, Close> handle;
};
struct Chat {
  std::shared_ptr<Model> model;
  std::unique_ptr<crumb_chat, Close> handle;
};

// What a call may set, and what keeps the texts alive that the C options point to.
struct Options {
  crumb_generate_options c{};
  std::vector<std::string> stop;
  std::vector<const char*> stop_pointers;
  std::optional<std::string> schema;
};

void read_options(const Model& model, const py::kwargs& given, Options& options) {
  check(crumb_generate_options_init(model.handle.get(), &options.c));
  for (const auto& [key, value] : given) {
    const auto name = key.cast<std::string>();
    if (name == "max_tokens")
      options.c.max_tokens = value.cast<int64_t>();
    else if (name == "seed")
      options.c.seed = value.cast<int64_t>();
    else if (name == "top_k")
      options.c.top_k = value.cast<int64_t>();
    else if (name == "repeat_last_n")
      options.c.repeat_last_n = value.cast<int64_t>();
    else if (name == "temperature")
      options.c.temperature = value.cast<float>();
    else if (name == "top_p")
      options.c.top_p = value.cast<float>();
    else if (name == "min_p")
      options.c.min_p = value.cast<float>();
    else if (name == "repeat_penalty")
      options.c.repeat_penalty = value.cast<float>();
    else if (name == "ignore_eos")
      options.c.ignore_eos = value.cast<bool>();
    else if (name == "stop")
      options.stop = value.cast<std::vector<std::string>>();
    else if (name == "json_schema")
      options.schema = value.cast<std::string>();
    else
      throw py::type_error("unknown option '" + name + "'");
  }
  for (const auto& text : options.stop) options.stop_pointers.push_back(text.c_str());
  options.c.stop = options.stop_pointers.data();
  options.c.stop_count = options.stop_pointers.size();
  options.c.json_schema = options.schema ? options.schema->c_str() : nullptr;
}

// on_text: called with each piece, a true result stops the answer. A Python exception in it does
// too, and is raised from the call.
struct Listener {
  py::object on_text;
  std::string text;
  std::optional<py::error_already_set> error;

  static int hear(const char* piece, size_t bytes, void* user) {
    auto* self = static_cast<Listener*>(user);
    self->text.append(piece, bytes);
    const py::gil_scoped_acquire lock;
    try {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (self->on_text.is_none()) return 0;
      return py::bool_(self->on_text(py::bytes(piece, bytes).attr("decode")("utf-8", "replace")));
    } catch (py::error_already_set& error) {
      self->error.emplace(error);
      return 1;
    }
  }
};

template <class Run>
py::dict answer(const Model& model, const py::object& on_text, const py::kwargs& given,
                const Run& run) {
  Options options;
  read_options(model, given, options);
  Listener listener{on_text, {}, {}};
  crumb_result result{};
  crumb_status status = CRUMB_OK;
  std::string message;
  {
    const py::gil_scoped_release released;
    status = run(&options.c, Listener::hear, &listener, &result);
    if (status != CRUMB_OK) message = crumb_last_error();
  }
  if (listener.error) throw *listener.error;
  if (status != CRUMB_OK) throw Failure{status, message};
  constexpr const char* kFinish[] = {"stop", "length", "context", "cancelled"};
  py::dict out;
  out["text"] = py::bytes(listener.text).attr("decode")("utf-8", "replace");
  out["finish_reason"] = kFinish[result.finish];
  out["prompt_tokens"] = result.prompt_tokens;
  out["cached_tokens"] = result.cached_tokens;
  out["completion_tokens"] = result.completion_tokens;
  out["seed"] = result.seed;
  out["prompt_seconds"] = result.prompt_seconds;
  out["first_token_seconds"] = result.first_token_seconds;
  out["decode_seconds"] = result.decode_seconds;
  return out;
}

std::shared_ptr<Model> open_model(const std::string& path, int threads) {
  auto model = std::make_shared<Model>();
  crumb_model_options options;
  crumb_model_options_init(&options);
  options.threads = threads;
  crumb_model* handle = nullptr;
  const py::gil_scoped_release released;
  check(crumb_model_open(path.c_str(), &options, &handle));
  model->handle.reset(handle);
  return model;
}

std::shared_ptr<Chat> open_chat(std::shared_ptr<Model> model, const std::string& system,
                                int64_t context) {
  crumb_chat_options options;
  crumb_chat_options_init(&options);
  options.context = context;
  crumb_chat* handle = nullptr;
  check(crumb_chat_open(model->handle.get(), &options, &handle));
  auto chat = std::make_shared<Chat>();
  chat->model = std::move(model);
  chat->handle.reset(handle);
  if (!system.empty()) check(crumb_chat_add(handle, "system", system.c_str()));
  return chat;
}

std::vector<int32_t> tokenize(const Model& model, const std::string& text, bool special) {
  size_t count = 0;
  check(crumb_tokenize(model.handle.get(), text.data(), text.size(), special, nullptr, 0, &count));
  std::vector<int32_t> ids(count);
  check(crumb_tokenize(model.handle.get(), text.data(), text.size(), special, ids.data(), count,
                       &count));
  return ids;
}

py::bytes detokenize(const Model& model, const std::vector<int32_t>& ids, bool special) {
  size_t bytes = 0;
  check(crumb_detokenize(model.handle.get(), ids.data(), ids.size(), special, nullptr, 0, &bytes));
  std::string text(bytes, '\0');
  check(crumb_detokenize(model.handle.get(), ids.data(), ids.size(), special, text.data(), bytes,
                         &bytes));
  return text;
}

}  // namespace

PYBIND11_MODULE(_crumb, m) {
  m.attr("__version__") = CRUMB_VERSION;
  static py::exception<Failure> error(m, "Error");
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Failure& failure) {
      py::object raised = static_cast<const py::object&>(error)(failure.message);
      raised.attr("code") = static_cast<int>(failure.status);
      PyErr_SetObject(error.ptr(), raised.ptr());
    }
  });
  py::class_<Model, std::shared_ptr<Model>>(m, "Model")
      .def(py::init(&open_model), py::arg("path"), py::arg("threads") = 0)
      .def_property_readonly("name",
                             [](const Model& m) { return crumb_model_name(m.handle.get()); })
      .def_property_readonly("context",
                             [](const Model& m) { return crumb_model_context(m.handle.get()); })
      .def_property_readonly("vocabulary",
                             [](const Model& m) { return crumb_model_vocabulary(m.handle.get()); })
      .def("tokenize", tokenize, py::arg("text"), py::arg("special") = false)
      .def("detokenize", detokenize, py::arg("ids"), py::arg("special") = false)
      .def("chat", open_chat, py::arg("system") = "", py::arg("context") = 0)
      .def(
          "generate",
          [](const Model& model, const std::string& prompt, const py::object& on_text,
             const py::kwargs& given) {
            return answer(model, on_text, given,
                          [&](auto* options, auto hear, void* user, auto* result) {
                            return crumb_generate(model.handle.get(), prompt.data(), prompt.size(),
                                                  nullptr, options, hear, user, result);
                          });
          },
          py::arg("prompt"), py::arg("on_text") = py::none());
  py::class_<Chat, std::shared_ptr<Chat>>(m, "Chat")
      .def("add",
           [](Chat& chat, const std::string& role, const std::string& content) {
             check(crumb_chat_add(chat.handle.get(), role.c_str(), content.c_str()));
           })
      .def("clear", [](Chat& chat) { check(crumb_chat_clear(chat.handle.get())); })
      .def(
          "say",
          [](Chat& chat, const std::string& text, const py::object& on_text,
             const py::kwargs& given) {
            return answer(*chat.model, on_text, given,
                          [&](auto* options, auto hear, void* user, auto* result) {
                            return crumb_chat_say(chat.handle.get(), text.c_str(), options, hear,
                                                  user, result);
                          });
          },
          py::arg("text"), py::arg("on_text") = py::none());
}
