// Runs both ends of the message counter outside of Node, built with AddressSanitizer and UndefinedBehaviorSanitizer.
//
//   message_counter_tool < lines
//     "take NEXT COUNT"   -> from NEXT on, are there COUNT numbers left, and how many are given one by one until there is none: "1 3"
//     "window N N ..."    -> a fresh window: "1" for each number that is accepted, and then marked, else "0"
//
// test/native/message-counter.test.ts says what is right.
#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>

#include "../message_counter.h"

using namespace faketcp;

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream fields(line);
    std::string order;
    uint64_t number = 0;
    fields >> order;
    if (order == "take") {
      uint64_t count = 0;
      fields >> number >> count;
      CounterSource source(number);
      const bool has = source.Has(count);
      uint64_t taken = 0;
      while (taken < count && source.Has(1) && source.Take() == number + taken) taken++;
      printf("%d %llu\n", has, static_cast<unsigned long long>(taken));
      continue;
    }
    ReplayWindow window;
    while (fields >> number) {
      const bool accepted = window.Accepts(number);
      if (accepted) window.Mark(number);
      putchar(accepted ? '1' : '0');
    }
    putchar('\n');
  }
  return 0;
}
