/** Colors between the stops of a ramp. */

/**
 * @param {readonly number[][]} stops
 * @param {number} steps
 * @returns {number[][]} as many colors, from the first stop to the last
 */
function interpolate(stops, steps) {
  return Array.from({length: steps}, (_, step) => {
    const at = steps > 1 ? step / (steps - 1) * (stops.length - 1) : 0
    const low = Math.min(Math.floor(at), stops.length - 2)
    const share = at - low
    return (stops[low] ?? []).map((value, channel) => value * (1 - share) + (stops[low + 1]?.[channel] ?? value) * share)
  })
}

/**
 * @param {readonly string[]} stops #rrggbb
 * @param {number} steps
 */
export function colorSteps(stops, steps) {
  const channels = stops.map((stop) => [1, 3, 5].map((from) => parseInt(stop.slice(from, from + 2), 16)))
  return interpolate(channels, steps).map((color) => `rgb(${color.map(Math.round).join()})`)
}

/**
 * @param {readonly number[][]} stops hue (degrees), saturation and lightness (percent)
 * @param {number} steps
 */
export function hslSteps(stops, steps) {
  return interpolate(stops, steps).map(([hue, saturation, lightness]) => `hsl(${hue},${saturation}%,${lightness}%)`)
}
