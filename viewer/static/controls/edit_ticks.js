/** Ticks on the timeline's slider where the network was edited. */

const THUMB_RADIUS = 6, TICK_WIDTH = 2 // px

/**
 * Return the CSS background of the slider: a tick for each edit, at the center of the thumb there.
 * @param {number[]} positions from 0 to 1
 */
export function editTickBackground(positions) {
  const margin = THUMB_RADIUS - TICK_WIDTH / 2
  return positions.map((at) => {
    // A percentage places the tick within the slider's width without that of the tick.
    const left = `calc(${(100 * at).toFixed(1)}% + ${(margin * (1 - 2 * at)).toFixed(1)}px)`
    return `linear-gradient(var(--green) 0 0) ${left} 50% / ${TICK_WIDTH}px 13px no-repeat`
  }).join(", ")
}
