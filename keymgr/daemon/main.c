#include "daemon.h"

int main(int argc, char **argv) { return lg_keyd_run(argc, argv); }
