// A sender whose trains leave in pieces, each of consecutive equal segments in one packet with a GSO size, payload taken from where it lies. Knows how
// segments become pieces; which bytes and addresses go with a piece, the derived class decides.
#pragma once

#include <sys/uio.h>

#include "sender.h"

namespace faketcp {

/** Pieces of memory that one piece of a train is put together from. */
constexpr size_t kMaxParts = 64;

class GsoSender : public Sender {
 protected:
  explicit GsoSender(Env& env) : Sender(env) {}

  struct Piece {
    /** Payload bytes, and segments, of the train before it. */
    uint32_t offset = 0;
    uint32_t index = 0;
    size_t bytes = 0;
    uint32_t segments = 0;
    size_t parts = 0;
  };
  struct PieceLimits {
    size_t bytes;
    uint32_t segments;
  };

  /** Calls SendPiece for each piece of a train; for one without payload once, with a piece of none. Stops when failed(). */
  void SendPieces(const int32_t* descriptor, const Bytes* buffers, const PieceLimits& limits);
  /** Where the parts of the piece that is next() are written: room for kMaxParts. */
  virtual iovec* Parts() = 0;
  /** Queues it as a message with `piece.parts` parts. */
  virtual void SendPiece(const int32_t* descriptor, const Piece& piece, bool last) = 0;

 private:
  void Add(Piece* piece, const uint8_t* data, size_t bytes);
};

}  // namespace faketcp
