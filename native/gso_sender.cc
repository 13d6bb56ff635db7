// A sender whose trains leave in pieces; see gso_sender.h.
#include "gso_sender.h"

namespace faketcp {

void GsoSender::SendPieces(const int32_t* d, const Bytes* buffers, const PieceLimits& limits) {
  int32_t skip = d[D_SKIP];
  const int32_t length = d[D_LENGTH];
  const size_t size = static_cast<size_t>(d[D_SEGMENT]);
  Piece piece;
  if (length == 0) {
    if (skip == 0) Finish(d, &piece, true);
    return;
  }
  for (int32_t i = 0; i < length; i++) {
    const Bytes& buffer = buffers[i];
    for (size_t at = 0; at < buffer.size; at += size) {
      const size_t left = buffer.size - at;
      const size_t bytes = left < size ? left : size;
      if (skip > 0) {
        skip--;
        piece.offset += static_cast<uint32_t>(bytes);
        piece.index++;
        continue;
      }
      // Only the last segment of a piece may be shorter than its GSO size.
      const bool uneven = piece.bytes != piece.segments * size;
      const bool full = piece.segments == limits.segments || piece.bytes + bytes > limits.bytes || piece.parts == kMaxParts;
      if (piece.segments > 0 && (uneven || full)) {
        Finish(d, &piece, false);
        if (failed()) return;
      }
      Add(&piece, buffer.data + at, bytes);
    }
  }
  if (piece.segments > 0) Finish(d, &piece, true);
}

void GsoSender::Add(Piece* piece, const uint8_t* data, size_t bytes) {
  iovec* parts = Parts();
  iovec* last = piece->parts > 0 ? &parts[piece->parts - 1] : nullptr;
  if (last != nullptr && static_cast<uint8_t*>(last->iov_base) + last->iov_len == data) {
    last->iov_len += bytes;
  } else {
    parts[piece->parts++] = {const_cast<uint8_t*>(data), bytes};
  }
  piece->bytes += bytes;
  piece->segments++;
}

/** The next piece follows in sequence. */
void GsoSender::Finish(const int32_t* descriptor, Piece* piece, bool last) {
  SendPiece(descriptor, *piece, last);
  *piece = {piece->offset + static_cast<uint32_t>(piece->bytes), piece->index + piece->segments, 0, 0, 0};
}

}  // namespace faketcp
