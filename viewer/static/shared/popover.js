/** Placing a popover beside the element that opened it. */

const MARGIN = 6 // px between the popover, its anchor, and the edge of the window

/**
 * Put an open popover below its anchor, or above it where there is no room.
 * @param {HTMLElement} popover
 * @param {Element} anchor
 */
export function placePopover(popover, anchor) {
  const {left, top, bottom} = anchor.getBoundingClientRect()
  const {offsetWidth, offsetHeight} = popover
  const below = bottom + MARGIN
  const hasRoom = below + offsetHeight <= innerHeight - MARGIN
  popover.style.left = `${Math.max(MARGIN, Math.min(left, innerWidth - offsetWidth - MARGIN))}px`
  popover.style.top = `${Math.max(MARGIN, hasRoom ? below : top - offsetHeight - MARGIN)}px`
}
