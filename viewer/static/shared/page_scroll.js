/** Where the page scrolls, which a view that zooms must not prevent. */

const SCROLLING = "(max-width: 800px)" // as in page.css

/**
 * Whether a turn of the wheel zooms the view under the pointer: where the page scrolls, only with Ctrl, as browsers report a
 * pinch on a touchpad.
 * @param {WheelEvent} event
 */
export function wheelZoomsView({ctrlKey}) {
  return ctrlKey || !matchMedia(SCROLLING).matches
}
