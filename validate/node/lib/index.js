// The same classes as for `require`, so that `instanceof` holds across both.

import chancery from './index.cjs'

export const { CODES, Rejection, Validator } = chancery
