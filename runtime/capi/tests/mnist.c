/* Runs a model of one float input on the numbers in a file, in two batches from one session, and writes the results.
 * Misuse is tried on the way: it must come back as a status with a message. Usage: mnist MODEL NUMBERS RESULTS */
#include "compress.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMAGE (28 * 28)

static void must(compress_status s, const char *what) {
    if (s != COMPRESS_OK) {
        fprintf(stderr, "%s: status %d: %s\n", what, (int)s, compress_message());
        exit(1);
    }
}

static void refused(compress_status s, compress_status expected, const char *what) {
    if (s != expected || strlen(compress_message()) == 0) {
        fprintf(stderr, "%s: status %d, not %d: %s\n", what, (int)s, (int)expected, compress_message());
        exit(1);
    }
}

static void misuse(const compress_session *session, compress_tensor input) {
    compress_session *other = NULL;
    compress_outputs *none = NULL;
    compress_port port;
    compress_tensor bad = input;
    refused(compress_open(NULL, 1, &other), COMPRESS_BAD_ARGUMENT, "no path");
    refused(compress_open("no such file.onnx", 1, &other), COMPRESS_BAD_DATA, "no file");
    refused(compress_open("no such file.onnx", 1, NULL), COMPRESS_BAD_ARGUMENT, "no place");
    refused(compress_open_memory((const uint8_t *)"junk", 4, 1, &other), COMPRESS_BAD_MODEL, "no model");
    refused(compress_input(session, 7, &port), COMPRESS_BAD_ARGUMENT, "no such input");
    refused(compress_run(NULL, &input, 1, &none), COMPRESS_BAD_ARGUMENT, "no session");
    refused(compress_run(session, NULL, 1, &none), COMPRESS_BAD_ARGUMENT, "no inputs");
    refused(compress_run(session, &input, 0, &none), COMPRESS_BAD_DATA, "an input is missing");
    bad.bytes -= 1;
    refused(compress_run(session, &bad, 1, &none), COMPRESS_BAD_ARGUMENT, "too few bytes");
    bad = input;
    bad.dtype = 99;
    refused(compress_run(session, &bad, 1, &none), COMPRESS_BAD_ARGUMENT, "no type");
    bad = input;
    bad.data = NULL;
    refused(compress_run(session, &bad, 1, &none), COMPRESS_BAD_ARGUMENT, "no data");
    bad = input;
    bad.rank = 1;
    refused(compress_run(session, &bad, 1, &none), COMPRESS_BAD_ARGUMENT, "another shape");
    if (other != NULL || none != NULL || compress_input_count(NULL) != 0) {
        fprintf(stderr, "a failed call gave something\n");
        exit(1);
    }
    compress_close(NULL);
    compress_outputs_free(NULL);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    FILE *in = fopen(argv[2], "rb"), *out = fopen(argv[3], "wb");
    if (!in || !out) return 2;
    static float numbers[3 * IMAGE];
    if (fread(numbers, sizeof *numbers, 3 * IMAGE, in) != 3 * IMAGE) return 2;

    compress_session *session = NULL;
    must(compress_open(argv[1], 1, &session), "open");
    compress_port port;
    must(compress_input(session, 0, &port), "input");
    if (compress_input_count(session) != 1 || port.dtype != COMPRESS_FLOAT || port.rank != 4) return 1;
    if (port.shape[0] != -1 || port.shape[3] != 28) return 1;

    size_t shape[4] = {2, 1, 28, 28};
    compress_tensor input = {port.name, COMPRESS_FLOAT, numbers, 2 * IMAGE * sizeof(float), shape, 4};
    misuse(session, input);
    must(compress_warm_up(session, &input, 1), "warm up");
    const size_t batches[2] = {2, 1};
    const float *at = numbers;
    for (int i = 0; i < 2; i++) {
        shape[0] = batches[i];
        input.data = at;
        input.bytes = batches[i] * IMAGE * sizeof(float);
        at += batches[i] * IMAGE;
        compress_outputs *outputs = NULL;
        compress_tensor result;
        must(compress_run(session, &input, 1, &outputs), "run");
        must(compress_outputs_get(outputs, 0, &result), "output");
        refused(compress_outputs_get(outputs, 1, &result), COMPRESS_BAD_ARGUMENT, "no such output");
        if (result.rank != 2 || result.shape[0] != batches[i] || result.bytes != batches[i] * 40) return 1;
        if (strcmp(result.name, "logits") != 0) return 1;
        if (fwrite(result.data, 1, result.bytes, out) != result.bytes) return 1;
        compress_outputs_free(outputs);
    }
    compress_close(session);
    return fclose(out) == 0 ? 0 : 1;
}
