// The known word that an unknown one was probably meant to be.

/** The one that takes the fewest insertions, deletions, replacements and exchanges of neighbours; case and the kind of dash do not count. */
export function nearest(word: string, known: readonly string[]): string {
  const plain = (text: string) =>
    text
      .replace(/(?<=[a-z])[A-Z]/g, '-$&')
      .toLowerCase()
      .replaceAll('_', '-')
  const ranked = known.map((one) => ({ one, distance: distance(plain(word), plain(one)) }))
  return ranked.reduce((best, other) => (other.distance < best.distance ? other : best)).one
}

/** Optimal string alignment distance. */
function distance(a: string, b: string): number {
  const rows = Array.from({ length: a.length + 1 }, (_, i) =>
    Array.from({ length: b.length + 1 }, (_, j) => (i === 0 ? j : j === 0 ? i : 0)),
  )
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const replace = rows[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)
      rows[i][j] = Math.min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, replace)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) rows[i][j] = Math.min(rows[i][j], rows[i - 2][j - 2] + 1)
    }
  }
  return rows[a.length][b.length]
}
