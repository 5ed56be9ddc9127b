/* Runs a compiled model on the numbers in a file and writes the results. Usage: mnist NUMBERS RESULTS */
#include "mnist.h"
#include <stdio.h>

int main(int argc, char **argv) {
    static float image[3 * MNIST_IMAGE], logits[MNIST_LOGITS];
    static _Alignas(64) unsigned char workspace[MNIST_WORKSPACE];
    if (argc != 3) return 2;
    FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
    if (!in || !out || fread(image, sizeof *image, 3 * MNIST_IMAGE, in) != 3 * MNIST_IMAGE) return 2;
    if (mnist_run(NULL, logits, workspace) != 1 || mnist_run(image, logits, NULL) != 1) return 3;
    if (mnist_run(image, logits, workspace + 4) != 1) return 3;
    for (int i = 0; i < 3; i++) {
        int status = mnist_run(image + i * MNIST_IMAGE, logits, workspace);
        if (status != 0) return 10 + status;
        if (fwrite(logits, sizeof *logits, MNIST_LOGITS, out) != MNIST_LOGITS) return 2;
    }
    return fclose(out) == 0 ? 0 : 2;
}
