/* compress: runs ONNX models on the CPU.
 *
 * Every function that can fail returns a compress_status; compress_message() then tells what went wrong in the words
 * of a person who has to fix it. Handles are opaque. A session may be used by many threads at once. No function
 * unwinds or throws. Pointers must be valid for what the function says it reads or writes; null is always detected.
 *
 * Generated from runtime/capi by cbindgen: BLESS=1 cargo test -p compress-capi */

#ifndef COMPRESS_H
#define COMPRESS_H

#include <stddef.h>
#include <stdint.h>

/**
 * What became of a call: who has to act when it is not COMPRESS_OK.
 */
typedef enum {
  /**
   * Done.
   */
  COMPRESS_OK = 0,
  /**
   * The model breaks a rule of its format or of an operator.
   */
  COMPRESS_BAD_MODEL = 1,
  /**
   * The model is valid, but uses something that is not implemented.
   */
  COMPRESS_UNSUPPORTED = 2,
  /**
   * A size is above the limit.
   */
  COMPRESS_LIMIT = 3,
  /**
   * The inputs do not fit the model, or a file cannot be read.
   */
  COMPRESS_BAD_DATA = 4,
  /**
   * A bug of this library, worth reporting.
   */
  COMPRESS_INTERNAL = 5,
  /**
   * A pointer is null, an index out of range or a number not one of its enumeration.
   */
  COMPRESS_BAD_ARGUMENT = 6,
} compress_status;

/**
 * Element types, by their ONNX numbers. Others than these occur in models but cannot be passed.
 */
typedef enum {
  COMPRESS_FLOAT = 1,
  COMPRESS_UINT8 = 2,
  COMPRESS_INT8 = 3,
  COMPRESS_UINT16 = 4,
  COMPRESS_INT16 = 5,
  COMPRESS_INT32 = 6,
  COMPRESS_INT64 = 7,
  /**
   * One byte each, 0 or 1.
   */
  COMPRESS_BOOL = 9,
  /**
   * IEEE half precision.
   */
  COMPRESS_FLOAT16 = 10,
  COMPRESS_DOUBLE = 11,
  COMPRESS_UINT32 = 12,
  COMPRESS_UINT64 = 13,
  COMPRESS_BFLOAT16 = 16,
} compress_dtype;

/**
 * The outputs of one run, in the model's order.
 */
typedef struct compress_outputs compress_outputs;

/**
 * A model ready to run.
 */
typedef struct compress_session compress_session;

/**
 * What a model says of one of its inputs or outputs.
 */
typedef struct {
  /**
   * Its name, ends with 0.
   */
  const char *name;
  /**
   * The ONNX number of its element type, 0 when it is no tensor.
   */
  int32_t dtype;
  /**
   * Sizes of the dims, -1 where any size will do. Null when the rank is open too.
   */
  const int64_t *shape;
  /**
   * Number of dims.
   */
  size_t rank;
} compress_port;

/**
 * A tensor in memory: row-major, little-endian, without gaps.
 */
typedef struct {
  /**
   * Name of the input or output, ends with 0.
   */
  const char *name;
  /**
   * A compress_dtype.
   */
  int32_t dtype;
  /**
   * First element. It may be null when there are no elements.
   */
  const void *data;
  /**
   * Bytes at `data`; must be exactly what type and shape need.
   */
  size_t bytes;
  /**
   * Sizes of the dims, outermost first. It may be null when the rank is 0.
   */
  const size_t *shape;
  /**
   * Number of dims.
   */
  size_t rank;
} compress_tensor;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * What went wrong in the last call of this thread that failed; never null. Valid until the next call that fails.
 */
const char *compress_message(void);

/**
 * Opens the model file at `path` (UTF-8, ends with 0) for runs on `threads` threads; 0 means all cores. On success
 * `*session` must be closed with compress_close.
 */
compress_status compress_open(const char *path,
                              size_t threads,
                              compress_session **session);

/**
 * As compress_open, with compiled programs and packed weights kept in the folder `cache` (UTF-8, ends with 0), so that a
 * model that was opened before starts without being read or compiled. Others must not be able to write to the folder.
 */
compress_status compress_open_cached(const char *path,
                                     size_t threads,
                                     const char *cache,
                                     compress_session **session);

/**
 * As compress_open for a model of `bytes` bytes in memory, which is copied.
 */
compress_status compress_open_memory(const uint8_t *model,
                                     size_t bytes,
                                     size_t threads,
                                     compress_session **session);

/**
 * Closes a session; null is allowed. Outputs of its runs stay valid.
 */
void compress_close(compress_session *session);

/**
 * Number of inputs the model takes; 0 for null.
 */
size_t compress_input_count(const compress_session *session);

/**
 * Number of outputs the model gives; 0 for null.
 */
size_t compress_output_count(const compress_session *session);

/**
 * Describes input `index`. The description is valid until the session is closed.
 */
compress_status compress_input(const compress_session *session, size_t index, compress_port *port);

/**
 * Describes output `index`. The description is valid until the session is closed.
 */
compress_status compress_output(const compress_session *session, size_t index, compress_port *port);

/**
 * Runs the model on `count` inputs, given by name in any order; their memory is read during the call only. On success
 * `*outputs` must be freed with compress_outputs_free. The first run with new shapes compiles.
 */
compress_status compress_run(const compress_session *session,
                             const compress_tensor *inputs,
                             size_t count,
                             compress_outputs **outputs);

/**
 * Compiles for inputs of these types and shapes, so that the next compress_run does not have to.
 */
compress_status compress_warm_up(const compress_session *session,
                                 const compress_tensor *inputs,
                                 size_t count);

/**
 * Output `index` as a tensor whose pointers are valid until the outputs are freed.
 */
compress_status compress_outputs_get(const compress_outputs *outputs, size_t index, compress_tensor *tensor);

/**
 * Frees the outputs of a run; null is allowed.
 */
void compress_outputs_free(compress_outputs *outputs);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* COMPRESS_H */
