/* Crumb from C: open a model, talk with it, see its tokens.
 *
 * Every function that can fail returns a crumb_status; crumb_last_error() then says in one line
 * what was wrong. Nothing here throws, prints or exits. Texts are UTF-8 (other bytes are accepted).
 *
 * Threads: handles may be used from any thread. Calls that run one model wait for each other. A
 * callback must not run the model that calls it: such a call is refused with CRUMB_ERROR_USAGE. A
 * handle must not be closed while another thread uses it.
 *
 * Structs of options: call their _init first, then change what you like. It stores the size that
 * your program knows, so that later versions can add fields at the end. */
#ifndef CRUMB_H
#define CRUMB_H

#include <stddef.h>
#include <stdint.h>

#define CRUMB_VERSION_MAJOR 0
#define CRUMB_VERSION_MINOR 1
#define CRUMB_VERSION_PATCH 0

#if defined(__GNUC__)
#define CRUMB_API __attribute__((visibility("default")))
#else
#define CRUMB_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The exit codes of the program `crumb`. */
typedef enum crumb_status {
  CRUMB_OK = 0,
  CRUMB_ERROR_INTERNAL = 1,
  CRUMB_ERROR_USAGE = 2,    /* a null pointer, a value out of range */
  CRUMB_ERROR_BAD_FILE = 3, /* an invalid model */
  CRUMB_ERROR_IO = 4,
  CRUMB_ERROR_MEMORY = 5,  /* out of memory, or over a limit such as the context */
  CRUMB_ERROR_NUMERIC = 6, /* a number that is none (NaN) */
  CRUMB_ERROR_CPU = 8      /* this CPU is not supported */
} crumb_status;

typedef enum crumb_finish {
  CRUMB_FINISH_STOP = 0,     /* the model ended its answer, or a stop text came */
  CRUMB_FINISH_LENGTH = 1,   /* max_tokens */
  CRUMB_FINISH_CONTEXT = 2,  /* the context is full */
  CRUMB_FINISH_CANCELLED = 3 /* the callback said so */
} crumb_finish;

typedef struct crumb_model crumb_model; /* weights and tokenizer */
typedef struct crumb_chat crumb_chat;   /* one conversation and its cache */

typedef struct crumb_model_options {
  size_t size;
  int32_t threads;      /* 0: one per physical core */
  int32_t pin;          /* not 0: threads stay on their cores (default) */
  int32_t copy_weights; /* not 0: into huge pages (default); 0: used in the mapped file */
  const char* isa;      /* instruction set, NULL: the best */
} crumb_model_options;

typedef struct crumb_chat_options {
  size_t size;
  int64_t context; /* tokens, 0: the trained length */
  const char* kv;  /* "i8", "f16" or "f32", NULL: i8, and f32 for float weights */
} crumb_chat_options;

typedef struct crumb_generate_options {
  size_t size;
  int64_t max_tokens; /* -1: until it stops or the context is full (default) */
  int64_t seed;       /* -1: random, and told in the result (default) */
  int64_t top_k;      /* 0: off */
  int64_t repeat_last_n;
  float temperature;    /* 0: always the likeliest token */
  float top_p;          /* 1: off */
  float min_p;          /* 0: off */
  float repeat_penalty; /* 1: off */
  int32_t ignore_eos;
  const char* const* stop; /* texts that end the answer, stop_count of them */
  size_t stop_count;
  const char* json_schema; /* the answer is held to it; NULL: free text */
} crumb_generate_options;

typedef struct crumb_result {
  crumb_finish finish;
  int64_t prompt_tokens, cached_tokens, completion_tokens, seed;
  double prompt_seconds, first_token_seconds, decode_seconds;
} crumb_result;

/* Gets whole characters as they come: `bytes` of them, and a NUL behind. Not 0 stops the answer. */
typedef int (*crumb_on_text)(const char* text, size_t bytes, void* user);

/* "0.1.0", of the library that runs. */
CRUMB_API const char* crumb_version(void);
/* What the latest failed call of this thread was about, "" if none failed. Valid until the next
 * call that fails in this thread. */
CRUMB_API const char* crumb_last_error(void);

CRUMB_API void crumb_model_options_init(crumb_model_options* options);
CRUMB_API void crumb_chat_options_init(crumb_chat_options* options);
/* The model's own defaults. */
CRUMB_API crumb_status crumb_generate_options_init(const crumb_model* model,
                                                   crumb_generate_options* options);

/* `path`: .crumb, .gguf or a folder. `options` may be NULL. */
CRUMB_API crumb_status crumb_model_open(const char* path, const crumb_model_options* options,
                                        crumb_model** model);
/* NULL is fine. Conversations of the model stay usable until they are closed too. */
CRUMB_API void crumb_model_close(crumb_model* model);
CRUMB_API const char* crumb_model_name(const crumb_model* model); /* lives as long as the model */
CRUMB_API int64_t crumb_model_context(const crumb_model* model);  /* trained length, 0 for NULL */
CRUMB_API int64_t crumb_model_vocabulary(const crumb_model* model);

/* Writes at most `capacity` ids (`ids` may be NULL if it is 0) and how many there are to *count.
 * special not 0: the spelling of a control token becomes that token. */
CRUMB_API crumb_status crumb_tokenize(const crumb_model* model, const char* text, size_t bytes,
                                      int special, int32_t* ids, size_t capacity, size_t* count);
/* The same for text; no NUL is added. Control tokens are left out unless special is not 0. */
CRUMB_API crumb_status crumb_detokenize(const crumb_model* model, const int32_t* ids, size_t count,
                                        int special, char* text, size_t capacity, size_t* bytes);

/* Continues `prompt` as it is, without the chat template. `options`, `on_text` and `result` may be
 * NULL. `chat_options` give the context and the type of the cache. */
CRUMB_API crumb_status crumb_generate(crumb_model* model, const char* prompt, size_t bytes,
                                      const crumb_chat_options* chat_options,
                                      const crumb_generate_options* options, crumb_on_text on_text,
                                      void* user, crumb_result* result);

/* `options` may be NULL. */
CRUMB_API crumb_status crumb_chat_open(crumb_model* model, const crumb_chat_options* options,
                                       crumb_chat** chat);
CRUMB_API void crumb_chat_close(crumb_chat* chat); /* NULL is fine */
/* Adds a message without answering it. role: "system", "user" or "assistant". */
CRUMB_API crumb_status crumb_chat_add(crumb_chat* chat, const char* role, const char* content);
CRUMB_API crumb_status crumb_chat_clear(crumb_chat* chat); /* forgets all messages */
/* Answers `text`; both stay in the conversation, also a cancelled answer. If it fails the
 * conversation is as before. */
CRUMB_API crumb_status crumb_chat_say(crumb_chat* chat, const char* text,
                                      const crumb_generate_options* options, crumb_on_text on_text,
                                      void* user, crumb_result* result);

#ifdef __cplusplus
}
#endif

#endif
