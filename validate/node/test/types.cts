// The same types for `require`.

import chancery = require('chancery')
import { bearer } from 'chancery/express'

const validator = new chancery.Validator({ issuer: 'i', audience: 'a' })
const handler: (req: any, res: any, next: any) => void = bearer(validator)
const rejection: Error = new chancery.Rejection('expired', '')
console.log(handler, rejection)
