// The page and the shared worker run the same script. This module starts the right part.

import { App } from "./app.js";
import { runWorker } from "./worker.js";

if (typeof document === "undefined") runWorker();
else new App();
