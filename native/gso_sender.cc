// A sender whose trains leave in pieces; see gso_sender.h.
#include "gso_sender.h"

namespace faketcp {

void GsoSender::SendPieces(const int32_t* d, const Bytes* buffers, const PieceLimits& limits) {
  const size_t size = static_cast<size_t>(d[D_SEGMENT]);
  Piece piece;
  EachSegment(d, buffers, [&](const Cut& cut) {
    if (cut.bytes == 0) return SendPiece(d, piece, true);
    // Only the last segment of a piece may be shorter than its GSO size.
    const bool uneven = piece.bytes != piece.segments * size;
    const bool full = piece.segments == limits.segments || piece.bytes + cut.bytes > limits.bytes || piece.parts == kMaxParts;
    if (piece.segments > 0 && (uneven || full)) {
      SendPiece(d, piece, false);
      piece = {};
      if (failed()) return;
    }
    if (piece.segments == 0) piece = {cut.offset, cut.index};
    Add(&piece, cut.data, cut.bytes);
  });
  if (piece.segments > 0) SendPiece(d, piece, true);
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

}  // namespace faketcp
