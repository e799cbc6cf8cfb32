/* The C API from C99: c_api_test MODEL NOT_A_MODEL. Prints the greedy answer of the model. */
#include <crumb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static void check(int good, const char *what, int line) {
  if (good) return;
  ++failures;
  fprintf(stderr, "line %d: %s (last error: %s)\n", line, what, crumb_last_error());
}
#define CHECK(condition) check((condition) != 0, #condition, __LINE__)
#define REFUSED(status, call) check((call) == (status) && crumb_last_error()[0] != 0, #call, __LINE__)

typedef struct text {
  char data[4096];
  size_t bytes, pieces, stop_after;
} text;

static int collect(const char *piece, size_t bytes, void *user) {
  text *to = user;
  CHECK(strlen(piece) <= bytes && piece[bytes] == 0);
  if (to->bytes + bytes < sizeof to->data) {
    memcpy(to->data + to->bytes, piece, bytes);
    to->bytes += bytes;
    to->data[to->bytes] = 0;
  }
  ++to->pieces;
  return to->stop_after != 0 && to->pieces >= to->stop_after;
}

static void say(crumb_chat *chat, const crumb_generate_options *options, const char *question,
                text *answer, crumb_result *result) {
  memset(answer, 0, sizeof *answer);
  CHECK(crumb_chat_say(chat, question, options, collect, answer, result) == CRUMB_OK);
}

static void test_files(const char *path, const char *bad) {
  crumb_model *model = (crumb_model *)&failures;
  crumb_model_options options;
  crumb_model_options_init(&options);
  REFUSED(CRUMB_ERROR_USAGE, crumb_model_open(NULL, NULL, &model));
  CHECK(model == NULL);
  REFUSED(CRUMB_ERROR_USAGE, crumb_model_open(path, NULL, NULL));
  REFUSED(CRUMB_ERROR_IO, crumb_model_open("/nonexistent/model.crumb", NULL, &model));
  REFUSED(CRUMB_ERROR_BAD_FILE, crumb_model_open(bad, &options, &model));
  options.threads = 100000;
  REFUSED(CRUMB_ERROR_USAGE, crumb_model_open(path, &options, &model));
  options.threads = 1;
  options.isa = "z80";
  CHECK(crumb_model_open(path, &options, &model) != CRUMB_OK && model == NULL);
  memset(&options, 0xff, sizeof options);
  REFUSED(CRUMB_ERROR_USAGE, crumb_model_open(path, &options, &model));
  crumb_model_close(NULL);
}

static void test_tokens(const crumb_model *model) {
  int32_t ids[64];
  char back[64];
  size_t count = 0, bytes = 0, needed = 0;
  CHECK(crumb_tokenize(model, "abc", 3, 0, ids, 64, &count) == CRUMB_OK && count > 0 && count < 64);
  CHECK(crumb_tokenize(model, "abc", 3, 0, NULL, 0, &needed) == CRUMB_OK && needed == count);
  CHECK(crumb_detokenize(model, ids, count, 0, back, sizeof back, &bytes) == CRUMB_OK);
  CHECK(bytes == 3 && memcmp(back, "abc", 3) == 0);
  CHECK(crumb_tokenize(model, "\xff\xfe\0\x80", 4, 1, ids, 64, &count) == CRUMB_OK);
  CHECK(crumb_tokenize(model, NULL, 0, 0, ids, 64, &count) == CRUMB_OK);
  REFUSED(CRUMB_ERROR_USAGE, crumb_tokenize(model, NULL, 1, 0, ids, 64, &count));
  REFUSED(CRUMB_ERROR_USAGE, crumb_tokenize(NULL, "a", 1, 0, ids, 64, &count));
  ids[0] = INT32_MAX;
  ids[1] = -1;
  REFUSED(CRUMB_ERROR_USAGE, crumb_detokenize(model, ids, 1, 0, back, sizeof back, &bytes));
  REFUSED(CRUMB_ERROR_USAGE, crumb_detokenize(model, ids + 1, 1, 0, back, sizeof back, &bytes));
}

static void test_refusals(crumb_model *model, const crumb_generate_options *good) {
  static const char *const stop[] = {"x", NULL};
  crumb_chat_options chat_options;
  crumb_generate_options options = *good;
  crumb_chat *chat = NULL;
  char *huge = malloc(100001);
  crumb_chat_options_init(&chat_options);
  chat_options.kv = "f64";
  REFUSED(CRUMB_ERROR_USAGE, crumb_chat_open(model, &chat_options, &chat));
  chat_options.kv = NULL;
  chat_options.context = -1;
  REFUSED(CRUMB_ERROR_USAGE, crumb_chat_open(model, &chat_options, &chat));
  chat_options.context = 64;
  CHECK(crumb_chat_open(model, &chat_options, &chat) == CRUMB_OK);
  REFUSED(CRUMB_ERROR_USAGE, crumb_chat_add(chat, "root", "x"));
  REFUSED(CRUMB_ERROR_USAGE, crumb_chat_say(chat, NULL, good, NULL, NULL, NULL));
  options.temperature = -1;
  REFUSED(CRUMB_ERROR_USAGE, crumb_chat_say(chat, "a", &options, NULL, NULL, NULL));
  options = *good;
  options.stop = stop;
  options.stop_count = 2;
  REFUSED(CRUMB_ERROR_USAGE, crumb_chat_say(chat, "a", &options, NULL, NULL, NULL));
  options = *good;
  options.json_schema = "{";
  REFUSED(CRUMB_ERROR_USAGE, crumb_chat_say(chat, "a", &options, NULL, NULL, NULL));
  memset(huge, 'a', 100000);
  huge[100000] = 0;
  REFUSED(CRUMB_ERROR_MEMORY, crumb_chat_say(chat, huge, good, NULL, NULL, NULL));
  CHECK(crumb_chat_say(chat, "a", good, NULL, NULL, NULL) == CRUMB_OK); /* it is as before */
  REFUSED(CRUMB_ERROR_USAGE, crumb_generate(model, "", 0, NULL, good, NULL, NULL, NULL));
  crumb_chat_close(chat);
  free(huge);
}

static int call_back(const char *piece, size_t bytes, void *user) {
  (void)piece;
  (void)bytes;
  REFUSED(CRUMB_ERROR_USAGE, crumb_generate(user, "abc", 3, NULL, NULL, NULL, NULL, NULL));
  return 1;
}

static void test_answers(crumb_model *model, const crumb_generate_options *options) {
  crumb_chat *chat = NULL;
  crumb_result result;
  crumb_generate_options longer = *options;
  text first, again;
  CHECK(crumb_chat_open(model, NULL, &chat) == CRUMB_OK);
  say(chat, options, "abc", &first, &result);
  CHECK(result.finish == CRUMB_FINISH_LENGTH && result.completion_tokens == 12);
  printf("%s\n", first.data);
  CHECK(crumb_chat_clear(chat) == CRUMB_OK);
  say(chat, options, "abc", &again, &result);
  CHECK(strcmp(first.data, again.data) == 0 && result.cached_tokens > 0);
  longer.max_tokens = 200;
  memset(&again, 0, sizeof again);
  again.stop_after = 2;
  CHECK(crumb_chat_say(chat, "def", &longer, collect, &again, &result) == CRUMB_OK);
  CHECK(result.finish == CRUMB_FINISH_CANCELLED && again.pieces == 2);
  CHECK(crumb_generate(model, "abc", 3, NULL, options, call_back, model, &result) == CRUMB_OK);
  CHECK(crumb_generate(model, "abc", 3, NULL, options, NULL, NULL, NULL) == CRUMB_OK);
  crumb_chat_close(chat);
}

typedef struct job {
  crumb_model *model;
  crumb_chat *chat;
  const crumb_generate_options *options;
  const char *question;
  text answer;
} job;

static void *work(void *user) {
  job *j = user;
  crumb_result result;
  int i;
  for (i = 0; i < 4; ++i) {
    CHECK(crumb_chat_clear(j->chat) == CRUMB_OK);
    say(j->chat, j->options, j->question, &j->answer, &result);
  }
  return NULL;
}

static void test_threads(crumb_model *model, const crumb_generate_options *options) {
  static job jobs[2];
  pthread_t threads[2];
  text alone;
  crumb_result result;
  int i;
  for (i = 0; i < 2; ++i) {
    jobs[i].model = model;
    jobs[i].options = options;
    jobs[i].question = i == 0 ? "first question" : "second";
    CHECK(crumb_chat_open(model, NULL, &jobs[i].chat) == CRUMB_OK);
  }
  for (i = 0; i < 2; ++i) CHECK(pthread_create(&threads[i], NULL, work, &jobs[i]) == 0);
  for (i = 0; i < 2; ++i) pthread_join(threads[i], NULL);
  crumb_model_close(model); /* conversations stay usable */
  for (i = 0; i < 2; ++i) {
    CHECK(crumb_chat_clear(jobs[i].chat) == CRUMB_OK);
    say(jobs[i].chat, options, jobs[i].question, &alone, &result);
    CHECK(strcmp(alone.data, jobs[i].answer.data) == 0);
    crumb_chat_close(jobs[i].chat);
  }
}

int main(int argc, char **argv) {
  crumb_model *model = NULL;
  crumb_generate_options options;
  if (argc != 3) return 2;
  CHECK(crumb_version()[0] == '0' + CRUMB_VERSION_MAJOR && crumb_last_error()[0] == 0);
  test_files(argv[1], argv[2]);
  CHECK(crumb_model_open(argv[1], NULL, &model) == CRUMB_OK);
  if (model == NULL) return 1;
  CHECK(crumb_model_name(model)[0] != 0 && crumb_model_context(model) > 0);
  CHECK(crumb_model_vocabulary(model) > 0 && crumb_model_vocabulary(NULL) == 0);
  REFUSED(CRUMB_ERROR_USAGE, crumb_generate_options_init(model, NULL));
  CHECK(crumb_generate_options_init(model, &options) == CRUMB_OK);
  options.temperature = 0;
  options.max_tokens = 12;
  options.ignore_eos = 1;
  test_tokens(model);
  test_refusals(model, &options);
  test_answers(model, &options);
  test_threads(model, &options); /* closes the model */
  return failures != 0;
}
