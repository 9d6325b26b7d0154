#include "front.h"

int main(int argc, char **argv) { return lg_front_run(argc, argv); }
