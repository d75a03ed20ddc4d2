/** How old the numbers are when they are painted, and where the time goes. */

const KEPT = 600
const SMOOTHING = 0.3

/** [published, read, sent, received, painted] of the newest snapshots: Unix times, ms.
 * @type {number[][]} */
export const times = []
let lag = 0
let age = NaN

/** From arrival to painting, ms, smoothed: what a slow page leaves out depends on it. */
export const averageLag = () => lag

/** From publishing to painting of the newest snapshot, s, by the clocks of both machines. */
export const newestAge = () => age

/**
 * @param {number[]} stamps Unix times (s): published, read, sent
 * @param {number} received Unix time, ms
 * @param {number} painted Unix time, ms
 */
export function recordPaint(stamps, received, painted) {
  const [published, ...others] = stamps.map((stamp) => 1000 * stamp)
  if (published == null || published === times.at(-1)?.[0]) return // the frame brought no new snapshot
  age = (painted - published) / 1000
  lag += SMOOTHING * (painted - received - lag)
  times.push([published, ...others, received, painted])
  if (times.length > KEPT) times.shift()
}
