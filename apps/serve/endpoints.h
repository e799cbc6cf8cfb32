// The functions behind the routes. Each answers its call, now or later, or throws ApiError.
#pragma once
#include "apps/serve/service.h"

namespace crumb::serve {

struct Service::Route {
  const char* method;
  const char* path;  // ends with '*': whatever follows
  bool open;         // needs no key
  bool slow;         // parses or tokenizes: not for the network's loop
  void (*run)(Service& service, const Call& call);
};

struct Endpoints {
  static void health(Service& service, const Service::Call& call);
  static void models(Service& service, const Service::Call& call);
  static void model(Service& service, const Service::Call& call);
  static void props(Service& service, const Service::Call& call);
  static void slots(Service& service, const Service::Call& call);
  static void metrics(Service& service, const Service::Call& call);
  static void page(Service& service, const Service::Call& call);
  static void openapi(Service& service, const Service::Call& call);
  static void tokenizer_info(Service& service, const Service::Call& call);
  static void tokenize(Service& service, const Service::Call& call);
  static void detokenize(Service& service, const Service::Call& call);
  static void chat(Service& service, const Service::Call& call);
  static void completions(Service& service, const Service::Call& call);
  static void embeddings(Service& service, const Service::Call& call);
};

}  // namespace crumb::serve
