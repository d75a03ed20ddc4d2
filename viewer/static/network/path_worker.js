/** Draws the paths in a worker. */

import {serveCanvas} from "../shared/canvas_worker.js"
import {paintPaths} from "./path_painter.js"

serveCanvas(paintPaths)
