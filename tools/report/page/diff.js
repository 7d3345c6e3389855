/* Which lines of two texts are the same: patience, so that names that occur once are the anchors. */

/** Pairs [i, j] of equal lines of two lists of numbers, in order. */
function matching(a, b, i = 0, m = a.length, j = 0, n = b.length) {
  const head = [], tail = [];
  while (i < m && j < n && a[i] === b[j]) head.push([i++, j++]);
  while (m > i && n > j && a[m - 1] === b[n - 1]) tail.push([--m, --n]);
  tail.reverse();
  const anchors = increasing(unique(a, b, i, m, j, n));
  if (!anchors.length) return head.concat(tail);
  const middle = [];
  for (const [x, y] of [...anchors, [m, n]]) {
    for (const pair of matching(a, b, i, x, j, y)) middle.push(pair);
    if (x < m || y < n) middle.push([x, y]);
    [i, j] = [x + 1, y + 1];
  }
  return head.concat(middle, tail);
}

/** Lines that both stretches have exactly once. */
function unique(a, b, i, m, j, n) {
  const seen = new Map();
  const note = (line, side, at) => {
    const entry = seen.get(line) ?? [0, 0, 0, 0];
    entry[side]++;
    entry[side + 2] = at;
    seen.set(line, entry);
  };
  for (let x = i; x < m; x++) note(a[x], 0, x);
  for (let y = j; y < n; y++) note(b[y], 1, y);
  return [...seen.values()].filter(([p, q]) => p === 1 && q === 1).map(([, , x, y]) => [x, y]).sort((p, q) => p[0] - q[0]);
}

/** The longest run of pairs in which both numbers rise. */
function increasing(pairs) {
  const ends = [], before = [];
  pairs.forEach(([, y], k) => {
    let low = 0, high = ends.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (pairs[ends[middle]][1] < y) low = middle + 1;
      else high = middle;
    }
    before[k] = low ? ends[low - 1] : -1;
    ends[low] = k;
  });
  const found = [];
  for (let k = ends.at(-1) ?? -1; k >= 0; k = before[k]) found.push(pairs[k]);
  return found.reverse();
}

/** The steps from one list to the other: [sign, i, j] with sign " ", "-" or "+". */
function steps(a, b) {
  const found = [];
  let i = 0, j = 0;
  for (const [x, y] of [...matching(a, b), [a.length, b.length]]) {
    while (i < x) found.push(["-", i++, j]);
    while (j < y) found.push(["+", i, j++]);
    if (x < a.length) found.push([" ", i++, j++]);
  }
  return found;
}
