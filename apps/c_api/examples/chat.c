/* Asks a model one question and prints the answer as it comes: chat MODEL QUESTION */
#include <crumb.h>
#include <stdio.h>

static int print(const char *text, size_t bytes, void *user) {
  (void)user;
  fwrite(text, 1, bytes, stdout);
  return fflush(stdout);
}

static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, crumb_last_error());
  return 1;
}

int main(int argc, char **argv) {
  crumb_model *model = NULL;
  crumb_chat *chat = NULL;
  crumb_generate_options options;
  crumb_result result;
  int status = 0;
  if (argc != 3) {
    fprintf(stderr, "usage: %s MODEL QUESTION\n", argv[0]);
    return 2;
  }
  if (crumb_model_open(argv[1], NULL, &model) != CRUMB_OK) return failed("open");
  if (crumb_chat_open(model, NULL, &chat) != CRUMB_OK ||
      crumb_generate_options_init(model, &options) != CRUMB_OK) {
    status = failed("chat");
  } else {
    options.temperature = 0;
    options.max_tokens = 64;
    if (crumb_chat_say(chat, argv[2], &options, print, NULL, &result) != CRUMB_OK)
      status = failed("say");
    else
      fprintf(stderr, "\n[%lld tokens]\n", (long long)result.completion_tokens);
  }
  crumb_chat_close(chat);
  crumb_model_close(model);
  return status;
}
