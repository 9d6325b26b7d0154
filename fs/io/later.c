#include "leadglass/later.h"

static _Thread_local bool later;

void lg_later_begin(void) { later = true; }
void lg_later_end(void) { later = false; }
bool lg_later(void) { return later; }
